"""Detected structures, --images and --masks, and data.toml."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pixelwise
import structures
from fixture_types import Cli
from miniatures import blobs, voc_colors, write_image, write_mask
from pixelwise.data import layouts
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.dataset_spec import DatasetSpec
from pixelwise.data.source import Source
from pixelwise.errors import InputError
from structures import AMBIGUOUS, STRUCTURES, Pairs, write_pairs


def found_pairs(root: Path, source: Source | SegmentationData) -> Pairs:
    return {
        split: {
            sample.image.relative_to(root).as_posix(): sample.mask.path.relative_to(root).as_posix()
            for sample in samples
        }
        for split, samples in source.splits.items()
    }


# Detection.


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_published_structure_is_read_with_its_splits_and_pairs(name: str, tmp_path: Path) -> None:
    write_pairs(tmp_path, STRUCTURES[name])
    source = layouts.read(tmp_path)
    assert found_pairs(tmp_path, source) == STRUCTURES[name]
    if source.layout == "structure":
        (note,) = [note for note in source.notes if note.startswith("structure: images ")]
        images, masks = re.fullmatch("structure: images (.*), masks (.*)", note).groups()  # type: ignore[union-attr]
        stated = layouts.read(tmp_path, DatasetSpec(images, masks))
        assert found_pairs(tmp_path, stated) == STRUCTURES[name]


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_folder_is_refused_with_commands_that_work(name: str, tmp_path: Path) -> None:
    AMBIGUOUS[name](tmp_path)
    with pytest.raises(InputError, match=r"can be read in \d+ ways") as raised:
        layouts.read(tmp_path)
    (line,) = raised.value.problems
    commands = [shlex.split(text) for text in re.findall("`(.*?)`", line)]
    assert len(commands) >= 2
    readings = set()
    for program, verb, root, *options in commands:
        assert (program, verb, root) == ("pixelwise", "train", str(tmp_path))
        assert options[0::2] == ["--images", "--masks"]
        images, masks = options[1::2]
        assert f"{images} with {masks} (4 pairs)" in line
        found = found_pairs(tmp_path, layouts.read(tmp_path, DatasetSpec(images, masks)))
        pairs = {pair for by_image in found.values() for pair in by_image.items()}
        assert len(pairs) == 4
        assert all(
            one.split(".")[0][-1] != "" and _numbers(one) == _numbers(other) for one, other in pairs
        )
        readings.add(frozenset(pairs))
    assert len(readings) == len(commands)


@pytest.mark.slow
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_every_command_of_the_error_for_an_ambiguous_folder_runs(
    name: str, tmp_path: Path, cli: Cli
) -> None:
    root = tmp_path / "data"
    AMBIGUOUS[name](root)
    with pytest.raises(InputError) as raised:
        layouts.read(root)
    tiny = ("--set", "model.options.backbone=tiny", "--set", "model.weights=none")
    for command in re.findall("`(.*?)`", str(raised.value)):
        _, *words = shlex.split(command)
        result = cli(*words, "--plan-only", "--out", "run", *tiny)
        assert (result.code, result.err) == (0, ""), command
        images = words[words.index("--images") + 1]
        assert f"images {images}" in " ".join(result.out.split()), result.out


def _numbers(path: str) -> str:
    return re.findall(r"\d+", Path(path).stem)[0]


def test_splits_without_any_mask_are_left_out_with_a_note(tmp_path: Path) -> None:
    write_pairs(tmp_path, STRUCTURES["Inria"])
    for n in range(3):
        write_image(tmp_path / f"AerialImageDataset/test/images/bellingham{n}.tif", n)
    source = layouts.read(tmp_path)
    assert found_pairs(tmp_path, source) == STRUCTURES["Inria"]
    unused = "not used, because they belong to no pair: the files of test/images/ (3)"
    assert unused in source.notes
    folder = tmp_path / "AerialImageDataset"
    for name in ("train", "test"):
        (folder / name / "images").rename(folder / name / "orthophotos")
    source = layouts.read(tmp_path)
    assert source.splits.keys() == {"train"}
    assert len(source.splits["train"]) == 4
    assert "test is left out: its 3 images have no masks" in source.notes


@pytest.mark.parametrize("mixed", [False, True])
def test_lists_of_pieces_divide_whole_images(tmp_path: Path, *, mixed: bool) -> None:
    """LandCover.ai: large tiles, and lists of the pieces into which they are to be cut."""
    for n in range(4):
        write_image(tmp_path / f"images/M-33-{n}.tif", n)
        write_mask(tmp_path / f"masks/M-33-{n}.tif", blobs(n, 3))
    train, val = (
        [f"M-33-{n}_{k}" for n in numbers for k in range(3)] for numbers in ((0, 2, 3), (1,))
    )
    if mixed:
        train[0], val[0] = val[0], train[0]
    (tmp_path / "train.txt").write_text("\n".join(train) + "\n")
    (tmp_path / "val.txt").write_text("\n".join(val) + "\n")
    source = layouts.read(tmp_path)
    stems = {split: [s.image.stem for s in samples] for split, samples in source.splits.items()}
    if mixed:
        assert stems == {"all": [f"M-33-{n}" for n in range(4)]}
        assert any("they name pieces of images" in note for note in source.notes)
    else:
        assert stems == {"train": ["M-33-0", "M-33-2", "M-33-3"], "val": ["M-33-1"]}


def test_a_missing_mask_in_a_detected_structure_is_reported(tmp_path: Path) -> None:
    write_pairs(tmp_path, STRUCTURES["MMSegmentation"])
    (tmp_path / "ann_dir/train/p1.png").unlink()
    with pytest.raises(
        InputError, match=r"img_dir/train/p1\.jpg: has no mask: add .*ann_dir/train"
    ):
        layouts.read(tmp_path)


def test_images_without_masks_are_an_unknown_layout_with_a_filled_in_command(
    tmp_path: Path,
) -> None:
    for n in range(3):
        write_image(tmp_path / f"fotos/a{n}.jpg", n)
        write_image(tmp_path / f"label maps/{'xyz'[n]}.png", 10 + n)
    with pytest.raises(InputError) as raised:
        layouts.read(tmp_path)
    command = "--images 'fotos/{id}.*' --masks 'label maps/{id}.*'"
    assert f"`pixelwise train {tmp_path} {command}`" in str(raised.value)
    assert "fotos/ (3), label maps/ (3)" in str(raised.value)


def test_images_in_a_subfolder_of_an_images_folder_are_an_error(tmp_path: Path) -> None:
    write_pairs(tmp_path, structures.pairs("images/p{n}.jpg", "masks/p{n}.png"))
    write_pairs(tmp_path, structures.pairs("images/more/q{n}.jpg", "masks/more/q{n}.png"))
    with pytest.raises(InputError, match=r"images/more/q0\.jpg: is in a subfolder of images/"):
        layouts.read(tmp_path)


def test_ade20k_and_camvid_need_more_evidence_than_folder_names(tmp_path: Path) -> None:
    splits = {"train": ("training", 3), "val": ("validation", 2)}
    own = structures.pairs("ade/images/{s}/p{n}.jpg", "ade/annotations/{s}/p{n}.png", splits)
    write_pairs(tmp_path, own)
    data = open_dataset(tmp_path / "ade")
    assert data.classes.names == ("class_0", "class_1", "class_2")
    assert (data.pixel_counts["train"] > 0).all()
    write_pairs(
        tmp_path,
        structures.pairs("cam/{s}/p{n}.jpg", "cam/{s}annot/p{n}.png", structures.TRAIN_VAL),
    )
    data = open_dataset(tmp_path / "cam")
    assert data.classes.names == ("class_0", "class_1", "class_2")
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 3, "val": 2}


CITY = (
    "leftImg8bit/{s}/city/city_00000{n}_000019_leftImg8bit.png",
    "gtFine/{s}/city/city_00000{n}",
)
OWN_CLASSES = {
    "Cityscapes": (*CITY, "_000019_gtFine_labelIds.png"),
    "Cityscapes, training ids": (*CITY, "_000019_gtFine_labelTrainIds.png"),
    "ADE20K": ("images/{s}ing/p{n}.jpg", "annotations/{s}ing/p{n}", ".png"),
    "CamVid": ("{s}/p{n}.jpg", "{s}annot/p{n}", ".png"),
    "CamVid, 32 classes": ("images/p{n}.jpg", "labels/p{n}", "_L.png"),
    "CamVid, 32 classes in splits": ("{s}/p{n}.jpg", "{s}_labels/p{n}", "_L.png"),
    "VOC": ("JPEGImages/p{n}.jpg", "SegmentationClass/p{n}", ".png"),
}
"""Image, mask and its ending in the folders of published datasets."""


@pytest.mark.parametrize("count", [3, 12])
@pytest.mark.parametrize("name", OWN_CLASSES)
def test_folders_of_a_published_dataset_do_not_name_the_classes(
    name: str, count: int, tmp_path: Path
) -> None:
    """Many write their own classes in these folders, numbered from 0."""
    image, *mask = OWN_CLASSES[name]
    pairs = structures.pairs(image, "".join(mask), {"train": ("train", 4)})
    for n, (one, other) in enumerate(pairs["train"].items()):
        write_image(tmp_path / one, n)
        write_mask(tmp_path / other, blobs(n, count), voc_colors() if name == "VOC" else None)
    if name == "VOC":  # labelme gives the masks of any classes the palette of VOC
        (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
        (tmp_path / "ImageSets/Segmentation/train.txt").write_text("p0\np1\np2\np3\n")
    data = open_dataset(tmp_path, draw_val=False)
    assert data.classes.names == tuple(f"class_{value}" for value in range(count))
    assert data.classes.ignore is None
    (samples,) = data.splits.values()
    for sample in samples:
        n = int(re.findall(r"\d+", sample.mask.path.name)[0])
        np.testing.assert_array_equal(data.read(sample)[1], blobs(n, count))


def test_the_masks_of_the_pet_dataset_are_no_class(tmp_path: Path) -> None:
    """It also has files of MATLAB beside a few images, and lists and XML beside the masks."""
    write_pairs(tmp_path, STRUCTURES["Oxford-IIIT Pet"])
    (tmp_path / "images" / "Abyssinian_1.mat").write_bytes(b"MATLAB")
    (tmp_path / "annotations" / "xmls").mkdir()
    (tmp_path / "annotations" / "xmls" / "Abyssinian_1.xml").write_text("<annotation/>")
    data = open_dataset(tmp_path, draw_val=False)
    assert data.classes.names == ("class_0", "class_1", "class_2")
    for sample in data.splits["all"]:
        number = int(sample.image.stem[-1])
        np.testing.assert_array_equal(data.read(sample)[1], blobs(number, 3))


def test_two_photo_folders_are_not_images_and_masks(tmp_path: Path) -> None:
    for n in range(4):
        write_image(tmp_path / f"left/p{n}.jpg", n)
        write_image(tmp_path / f"right/p{n}.jpg", 10 + n)
    with pytest.raises(InputError, match="no two folders whose files belong together"):
        layouts.read(tmp_path)


# Patterns.


def read(root: Path, images: str, masks: str) -> Pairs:
    return found_pairs(root, layouts.read(root, DatasetSpec(images, masks)))


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("uavid_{split}/{scene}/Images/{id}.png", "uavid_{split}/{scene}/Labels/{id}.png"),
        ("uavid_{split}/*/Images/{id}.png", "uavid_{split}/*/Labels/{id}.png"),
        ("uavid_{split}/**/Images/{id}", "uavid_{split}/**/Labels/{id}"),
        ("./uavid_{split}\\{scene}\\Images\\{id}.*", "uavid_{split}/{scene}/Labels/{id}.{ext}"),
    ],
)
def test_patterns_with_several_names_pair_what_agrees_in_all(
    images: str, masks: str, tmp_path: Path
) -> None:
    write_pairs(tmp_path, STRUCTURES["UAVid"])
    assert read(tmp_path, images, masks) == STRUCTURES["UAVid"]


def test_a_name_that_several_files_share_is_an_error(tmp_path: Path) -> None:
    write_pairs(tmp_path, STRUCTURES["UAVid"])
    with pytest.raises(InputError, match=r"has the same name as .*seq1.*: rename one, or write a"):
        read(tmp_path, "uavid_{split}/**/Images/{id}.png", "uavid_{split}/seq1/Labels/{id}.png")


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ("imgs/{id}.jpg", "masks/{id}.png", r"--images 'imgs/\{id\}\.jpg': .*imgs does not exist"),
        ("images/{id}.tif", "masks/{id}.png", r"--images .*: matches no file in"),
        ("images/p0.jpg", "masks/{id}.png", r"images/p0\.jpg: does not exist"),
        ("images/{id}.jpg", "masks/{x}.png", "shares no name with --masks"),
        ("images/{id.jpg", "masks/{id}.png", "a brace has no partner"),
        ("images/{}.jpg", "masks/{id}.png", r"\{\} is no name"),
        ("images/a**/{id}.jpg", "masks/{id}.png", r"\*\* stands for folders"),
        ("images/{id}.jpg", "", "--masks is missing"),
        ("images/{id}.jpg", "truth", r"truth: does not exist: correct --masks"),
        ("images/{id}.jpg", "images/{id}.jpg", "matches no file in .* that --masks"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_one_line(
    images: str, masks: str, message: str, tmp_path: Path
) -> None:
    write_pairs(tmp_path, structures.pairs("images/p{n}.jpg", "masks/p{n}.png"))
    with pytest.raises(InputError, match=message) as raised:
        read(tmp_path, images, masks)
    assert len(raised.value.problems) == 1


def test_doctor_refuses_a_wrong_pattern(tmp_path: Path, cli: Cli) -> None:
    write_pairs(tmp_path, structures.pairs("images/p{n}.jpg", "masks/p{n}.png"))
    wrong = cli("doctor", tmp_path, "--images", "imgs/{id}.jpg", "--masks", "masks/{id}.png")
    assert wrong.code == 2
    assert "--images 'imgs/{id}.jpg'" in wrong.err


def test_folders_and_mixed_statements_choose_the_masks(tmp_path: Path) -> None:
    structures.cwfid(tmp_path)
    wanted = {f"images/00{n}_image.png": f"annotations/00{n}_annotation.png" for n in range(4)}
    for images, masks in (
        ("images", "annotations"),
        ("", "annotations"),
        ("", "annotations/"),
        ("images/{id}_image.png", "annotations/{id}_annotation.png"),
    ):
        assert read(tmp_path, images, masks) == {"all": wanted}


def test_files_that_no_pattern_matches_are_counted(tmp_path: Path) -> None:
    write_pairs(tmp_path, structures.pairs("images/p{n}.jpg", "masks/p{n}.png"))
    write_image(tmp_path / "images/logo.jpg", 1)
    source = layouts.read(tmp_path, DatasetSpec("images/p{id}.jpg", "masks/p{id}.png"))
    assert (
        "skipped because no pattern matches them: 1 files, such as images/logo.jpg" in source.notes
    )


# data.toml.

PENN_FUDAN = """
images = "PNGImages/{id}.png"
masks = "PedMasks/{id}_mask.png"
[values]
0 = "background"
"1.." = "person"
"""
CRACK_FOREST = """
images = "image/{id}.jpg"
masks = "groundTruth/{id}.mat"
variable = "groundTruth.Segmentation"
[values]
1 = "road"
2 = "crack"
"""
CWFID = """
masks = "annotations"
[colors]
"0,0,0" = "soil"
"#ff0000" = "weed"
"0,255,0" = "crop"
"""


def test_folders_that_number_their_classes_differently_are_refused(tmp_path: Path) -> None:
    """The folders that labelme writes for each JSON file."""
    for number, names in enumerate(("apple\npea", "pea", "pea\napple")):
        folder = tmp_path / f"photo_{number}_json"
        write_image(folder / "img.png", number)
        write_mask(folder / "label.png", blobs(number, 3))
        (folder / "label_names.txt").write_text(f"_background_\n{names}")
    with pytest.raises(InputError, match=r"label_names\.txt: lists other classes than .*JSON"):
        open_dataset(tmp_path, draw_val=False)


def test_penn_fudan_is_refused_with_a_mapping_that_works(tmp_path: Path) -> None:
    structures.penn_fudan(tmp_path)
    with pytest.raises(InputError) as raised:
        open_dataset(tmp_path, draw_val=False)
    (line,) = raised.value.problems
    mapping = re.search(r"write (\S+data\.toml) with (values = \{[^}]*\})", line)
    assert mapping, line
    Path(mapping[1]).write_text(mapping[2])
    data = open_dataset(tmp_path, draw_val=False)
    assert data.classes.names == ("background", "object")
    (samples,) = data.splits.values()
    for number, sample in enumerate(samples):
        np.testing.assert_array_equal(data.read(sample)[1], structures.persons(number) > 0)


STATED: dict[str, tuple[Callable[[Path], None], str, list[str], Callable[[int], Any]]] = {
    "Penn-Fudan": (
        structures.penn_fudan,
        PENN_FUDAN,
        ["background", "person"],
        lambda n: structures.persons(n) > 0,
    ),
    "CrackForest": (
        structures.crack_forest,
        CRACK_FOREST,
        ["road", "crack"],
        lambda n: blobs(n, 2),
    ),
    "CWFID": (structures.cwfid, CWFID, ["soil", "weed", "crop"], lambda n: blobs(n, 3)),
}


def check_masks(data: SegmentationData, expected: Callable[[int], Any]) -> None:
    samples = [sample for found in data.splits.values() for sample in found]
    assert len(samples) == 4
    for sample in samples:
        number = int(re.findall(r"\d+", sample.image.stem)[0])
        np.testing.assert_array_equal(data.read(sample)[1], expected(number))


@pytest.mark.parametrize("name", STATED)
def test_a_stated_dataset_has_the_right_masks_everywhere(
    name: str, tmp_path: Path, cli: Cli
) -> None:
    write, text, names, expected = STATED[name]
    root = tmp_path / "data"
    write(root)
    (root / "data.toml").write_text(text)
    data = pixelwise.open_dataset(root, quiet=True)
    assert list(data.classes.names) == names
    check_masks(data, expected)
    check_masks(open_dataset(root, cache_bytes=0), expected)
    assert [row.name for row in pixelwise.examine(root, quiet=True).facts.classes] == names
    assert cli("convert-data", str(root), str(tmp_path / "plain")).code == 0
    plain = open_dataset(tmp_path / "plain")
    assert plain.classes == data.classes.indexed()
    check_masks(plain, expected)


TINY = {"model.weights": "none", "model.options.backbone": "tiny", "memory_format": "contiguous"}


@pytest.mark.parametrize(
    "name",
    ["Penn-Fudan", *(pytest.param(n, marks=pytest.mark.slow) for n in ("CrackForest", "CWFID"))],
)
def test_a_stated_dataset_is_trained_resumed_and_evaluated_in_the_same_way(
    name: str, tmp_path: Path
) -> None:
    write, text, names, _ = STATED[name]
    root, out = tmp_path / "data", tmp_path / "run"
    write(root)
    content = text.partition("[")
    patterns = dict(re.findall(r'^(images|masks) = "(.*)"$', content[0], re.M))
    rest = re.sub(r"^(images|masks) = .*$", "", content[0], flags=re.M)
    (root / "data.toml").write_text(rest + content[1] + content[2])
    arguments = {**TINY, "data.workers": 0}
    run = pixelwise.train(
        root,
        out=out,
        settings=arguments,
        epochs=1,
        batch_size=2,
        device="cpu",
        quiet=True,
        **patterns,
    )
    assert list(run.data.classes.names) == names
    recorded = json.loads((out / "data.json").read_text())["stated"]
    assert {key: recorded[key] for key in patterns} == patterns
    assert pixelwise.resume(out, quiet=True).data.splits == run.data.splits
    # Without the options, the network reads its dataset as in the training.
    evaluation = pixelwise.evaluate(run.best, root, quiet=True)
    assert evaluation.image_counts.names == tuple(s.name for s in run.data.splits["val"])
    (root / "data.toml").write_text(
        (root / "data.toml").read_text().replace(f'"{names[0]}"', '"x"')
    )
    with pytest.raises(InputError, match=r"what data\.toml and the options state .* has changed"):
        pixelwise.resume(out, quiet=True)


def stated(root: Path, text: str) -> SegmentationData:
    (root / "data.toml").write_text(text)
    return open_dataset(root, draw_val=False)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """images/ and masks/ with the values 0 to 4 and 255."""
    for n in range(4):
        write_image(tmp_path / f"images/{n:03}.png", n)
        write_mask(tmp_path / f"masks/{n:03}.png", blobs(n, 5, void=True))
    return tmp_path


def test_values_are_merged_dropped_and_ignored(plain: Path) -> None:
    data = stated(
        plain,
        '[values]\n0 = "background"\n"1, 3" = "thing"\n2 = "background"\n"4..200" = "ignore"\n'
        '255 = "ignore"\n',
    )
    assert data.classes.names == ("background", "thing")
    assert data.classes.values == (0, 1)
    for n, sample in enumerate(data.splits["all"]):
        table = np.full(256, 255)
        table[:4] = 0, 1, 0, 1
        np.testing.assert_array_equal(data.read(sample)[1], table[blobs(n, 5, void=True)])


def test_a_narrow_range_is_an_exception_to_a_wide_one(plain: Path) -> None:
    data = stated(plain, '[values]\n255 = "ignore"\n"0.." = "other"\n"2..3" = "thing"\n')
    assert data.classes.names == ("other", "thing")
    _, mask = data.read(data.splits["all"][0])
    table = np.zeros(256)
    table[[2, 3, 255]] = 1, 1, 255
    np.testing.assert_array_equal(mask, table[blobs(0, 5, void=True)])


CLASS_TABLE = '[[class]]\nname = "a"\nvalue = 0\n[[class]]\nname = "b"\nvalue = 1\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[values]\n0 = "a"\n', r"mask value 1, 2, 3, 4, 255 is not in \[values\] of .*data\.toml"),
        ('[values]\nx = "a"\n', r"data\.toml: values.\"x\": write a value, a range such as 1\.\."),
        ('[values]\n"0..3" = "a"\n"2..9" = "b"\n', r'overlaps "0\.\.3": map each value once'),
        ('[values]\n"5..3" = "a"\n', "is no range of mask values"),
        ("[values]\n0 = 3\n", r"data\.toml: values\.0: is 3: write a class name"),
        ('[colors]\n"1,2" = "a"\n', "write red, green, blue"),
        ("imagse = 3\n", r"unknown key 'imagse': allowed are images, masks"),
        ("images = 3\n", "images: is 3: write a folder or a pattern"),
        ("images = \n", r"data\.toml: invalid TOML"),
        ("ignore = 255\n", "ignore has no effect without"),
        (CLASS_TABLE + '[values]\n1 = "a"\n', "maps 1 to 'a', but it is the value of 'b'"),
        (CLASS_TABLE + '[values]\n2 = "c"\n', "'c': is not in the class table: a, b, ignore"),
    ],
)
def test_a_wrong_data_toml_is_refused(text: str, message: str, plain: Path) -> None:
    with pytest.raises(InputError, match=message):
        stated(plain, text)


def test_data_toml_and_classes_toml_must_agree(plain: Path) -> None:
    names = ["sky", "road", "car", "tree", "sign"]
    table = "ignore = 255\n" + "".join(f'[[class]]\nname = "{name}"\n' for name in names)
    assert stated(plain, table).classes.names == tuple(names)
    (plain / "classes.toml").write_text(table)
    assert stated(plain, table).classes.names == tuple(names)
    with pytest.raises(InputError, match=r"states other classes than classes\.toml beside it"):
        stated(plain, table.replace("car", "bus"))
    values = '[values]\n"0..1" = "sky"\n"2..4" = "car"\n'
    assert stated(plain, values).classes.names == tuple(names)
    with pytest.raises(InputError, match=r"'dog': is not in the class table"):
        stated(plain, values.replace("car", "dog"))


def test_classes_of_a_layout_are_merged_by_name(tmp_path: Path) -> None:
    from miniatures import MINIATURES

    expected = MINIATURES["coco"](tmp_path)
    names = [name for name in expected.names if name != "background"]
    lines = "".join(f'"{name}" = "thing"\n' for name in names)
    data = stated(tmp_path, f'[values]\nbackground = "background"\n{lines}')
    assert data.classes.names == ("background", "thing")
    for split, masks in expected.masks.items():
        for sample in data.splits[split]:
            np.testing.assert_array_equal(data.read(sample)[1], masks[sample.image.stem] > 0)


SPLITS = {
    "names": '[splits]\ntrain = ["000", "images/002.png"]\nval = ["masks/003"]\n',
    "lists": '[splits]\ntrain = "lists/a.txt"\nvalid = ["lists/b.json"]\n',
    "numbers": 'splits = "split.yaml"\n',
    "json": 'splits = "split.json"\n',
}


@pytest.mark.parametrize("name", SPLITS)
def test_splits_are_stated_as_names_lists_json_and_yaml(name: str, plain: Path) -> None:
    (plain / "lists").mkdir()
    (plain / "lists/a.txt").write_text("C:\\data\\images\\000.png\n./images/002.png 3 1\n")
    (plain / "lists/b.json").write_text('["003"]')
    (plain / "split.yaml").write_text("train: [0, 2]\nval:\n- 3\nother: [1]\n")
    (plain / "split.json").write_text('{"training": ["000", "002"], "validation": ["003"]}')
    data = stated(plain, SPLITS[name])
    stems = {split: [s.image.stem for s in samples] for split, samples in data.splits.items()}
    assert stems == {"train": ["000", "002"], "val": ["003"]}
    assert any("images skipped because no split names them: 1" in note for note in data.notes)


def test_splits_are_stated_as_folders(tmp_path: Path) -> None:
    write_pairs(
        tmp_path, structures.pairs("images/{scene}/{n}.jpg", "masks/{scene}/{n}.png", scenes=3)
    )
    data = stated(
        tmp_path, '[splits]\ntrain = ["images/seq1", "images/seq2"]\nval = "masks/seq3"\n'
    )
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 8, "val": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[splits]\ntrain = ["004"]\n', r"data\.toml: 004: no image has this name"),
        ('[splits]\ntrain = ["000"]\nval = ["000"]\n', "is in train and in val"),
        ('[splits]\nfirst = ["000"]\n', r"splits\.first: splits are train, val, test"),
        ('[splits]\ntrain = "absent.txt"\n', r"absent\.txt: cannot be read"),
        ('splits = "absent.json"\n', r"absent\.json: cannot be read"),
        ("[splits]\ntrain = 3\n", "splits.*: is 3: write a folder, a list file"),
    ],
)
def test_splits_that_cannot_be_used_are_refused(text: str, message: str, plain: Path) -> None:
    with pytest.raises(InputError, match=message):
        stated(plain, text)


def test_options_take_precedence_over_data_toml_and_that_over_detection(tmp_path: Path) -> None:
    structures.cwfid(tmp_path)
    (tmp_path / "data.toml").write_text('masks = "masks"\n')
    assert {s.mask.path.parent.name for s in layouts.read(tmp_path).splits["all"]} == {"masks"}
    source = layouts.read(tmp_path, DatasetSpec(masks="annotations"))
    assert {s.mask.path.parent.name for s in source.splits["all"]} == {"annotations"}


@pytest.mark.parametrize("name", ["MMSegmentation", "UAVid", "Potsdam", "one folder per image"])
def test_doctor_writes_down_what_it_detected(name: str, tmp_path: Path, cli: Cli) -> None:
    write_pairs(tmp_path, STRUCTURES[name])
    before = open_dataset(tmp_path)
    assert (
        f"written to {tmp_path / 'data.toml'}"
        in cli("doctor", str(tmp_path), "--write-data-toml").out
    )
    after = open_dataset(tmp_path)
    assert after.layout == "stated"
    assert after.classes.names == before.classes.names
    assert found_pairs(tmp_path, after) == found_pairs(tmp_path, before)
    for split, samples in before.splits.items():
        for one, other in zip(samples, after.splits[split], strict=True):
            np.testing.assert_array_equal(before.read(one)[1], after.read(other)[1])
    again = cli("doctor", str(tmp_path), "--write-data-toml")
    assert again.code == 2
    assert "data.toml: exists already" in again.err


def test_a_variable_of_a_matrix_file_must_be_clear(tmp_path: Path) -> None:
    for n in range(2):
        write_image(tmp_path / f"images/{n}.png", n)
        (tmp_path / "masks").mkdir(exist_ok=True)
        np.savez(tmp_path / f"masks/{n}.npz", a=blobs(n, 3), b=blobs(n, 2))
    with pytest.raises(InputError, match=r'holds several arrays \(a, b\): write `variable = "a"`'):
        open_dataset(tmp_path)
    data = stated(tmp_path, 'variable = "b"\n')
    assert data.classes.names == ("class_0", "class_1")
    for sample in data.splits["all"]:
        np.testing.assert_array_equal(data.read(sample)[1], blobs(int(sample.image.stem), 2))
    with pytest.raises(InputError, match=r"has no array c: the arrays are a, b"):
        stated(tmp_path, 'variable = "c"\n')
    (tmp_path / "masks/0.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=r"0\.npz: cannot be read"):
        stated(tmp_path, 'variable = "b"\n')


def test_a_bundle_is_evaluated_on_a_dataset_of_another_structure(
    tmp_path: Path, plain: Path
) -> None:
    spec = DatasetSpec("elsewhere/{id}.png", "truth/{id}.png", from_run=True)
    assert layouts.read(plain, spec).layout == "folders"
    shutil.move(plain / "images", plain / "elsewhere")
    shutil.move(plain / "masks", plain / "truth")
    assert layouts.read(plain, spec).layout == "stated"
