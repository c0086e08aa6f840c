"""Opening a dataset: layouts, splits, classes, assumptions and error messages."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixture_types import MakeData
from pixelwise.data.classes import IGNORE, Classes, write_classes_toml
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.image_files import read_image
from pixelwise.data.layouts import camvid
from pixelwise.errors import InputError

CAMVID = Path(__file__).parents[2] / "shared" / "camvid"


def names(data: SegmentationData, split: str) -> list[str]:
    return [sample.name for sample in data.splits[split]]


def problems(root: Path) -> list[str]:
    """Return the error lines for a dataset; each names a file below `root` and a remedy."""
    with pytest.raises(InputError) as raised:
        open_dataset(root)
    lines = list(raised.value.problems)
    for line in lines:
        assert line.startswith(str(root)), line
        assert ": " in line
        assert "\n" not in line
    return lines


def problem(root: Path) -> str:
    (line,) = problems(root)
    return line


def save_mask(path: Path, mask: object, *, palette: bytes | None = None) -> None:
    image = Image.fromarray(np.array(mask, dtype=np.uint8))
    if palette is not None:
        image.putpalette(palette)
    image.save(path)


# Layouts and splits.


def test_splits_in_folders_are_kept(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path, splits={"train": 3, "val": 2, "test": 1})
    data = open_dataset(tmp_path)
    assert data.layout == "folders"
    assert names(data, "train") == [f"images/train/train_00{i}" for i in range(3)]
    assert names(data, "val") == ["images/val/val_000", "images/val/val_001"]
    assert names(data, "test") == ["images/test/test_000"]
    assert set(data.sizes.values()) == {(24, 32)}


def test_only_the_requested_splits_are_opened(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path, splits={"train": 2, "val": 1, "test": 1})
    (tmp_path / "images/test/test_000.png").write_bytes(b"")
    data = open_dataset(tmp_path, splits=("val", "train"))
    assert list(data.splits) == ["val", "train"]
    with pytest.raises(InputError, match=r"there is no split 'tset': it has train, val, test"):
        open_dataset(tmp_path, splits=("tset",))


def test_the_same_name_in_two_splits_is_two_samples(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path / "a", count=1, seed=1)
    make_folder_data(tmp_path / "b", count=1, seed=2)
    root = tmp_path / "data"
    for split, source in (("train", "a"), ("val", "b")):
        for kind in ("images", "masks"):
            shutil.copytree(tmp_path / source / kind, root / kind / split)
    data = open_dataset(root)
    for split, source in (("train", "a"), ("val", "b")):
        image, _ = data.read(data.splits[split][0])
        np.testing.assert_array_equal(image, read_image(tmp_path / source / "images" / "000.png"))


@pytest.mark.parametrize(
    ("count", "fraction", "drawn"), [(2, 0.2, 1), (10, 0.2, 2), (10, 0.99, 9), (9, 0.01, 1)]
)
def test_a_dataset_without_splits_is_divided(
    tmp_path: Path, make_folder_data: MakeData, count: int, fraction: float, drawn: int
) -> None:
    make_folder_data(tmp_path, count=count, size=(4, 4))
    data = open_dataset(tmp_path, val_fraction=fraction)
    train, val = names(data, "train"), names(data, "val")
    assert len(val) == drawn
    assert sorted(train + val) == [
        f"images/{i:03d}" for i in range(count)
    ]  # no duplicates, none missing
    assert any(f"{drawn} of {count} images were drawn" in note for note in data.notes)


def test_the_validation_split_depends_on_the_seed_only(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path, count=20, size=(4, 4))
    drawn = [names(open_dataset(tmp_path, seed=seed), "val") for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_train_without_val_is_split(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path, splits={"train": 5, "test": 2}, size=(4, 4))
    data = open_dataset(tmp_path)
    assert {split: len(samples) for split, samples in data.splits.items()} == {
        "train": 4,
        "val": 1,
        "test": 2,
    }
    assert any("no validation split in the dataset: 1 of 5 images" in note for note in data.notes)


def make_camvid(root: Path, *, suffix: str, splits: tuple[str, ...] = ("train", "val")) -> Path:
    rng = np.random.default_rng(0)
    for split in splits:
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for i in range(2):
            mask = rng.integers(0, 12, (24, 32), dtype=np.uint8)
            mask[0, :12] = range(12)
            Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(
                root / split / f"0001TP_{split}{i}{suffix}"
            )
            Image.fromarray(mask).save(root / f"{split}annot" / f"0001TP_{split}{i}.png")
    return root


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_published_camvid_layout_is_read(tmp_path: Path, suffix: str) -> None:
    data = open_dataset(make_camvid(tmp_path, suffix=suffix))
    assert data.layout == "camvid"
    assert names(data, "val") == ["val/0001TP_val0", "val/0001TP_val1"]
    assert data.classes == camvid.CLASSES
    assert len(data.classes) == 11
    image, mask = data.read(data.splits["train"][0])
    assert image.shape == (24, 32, 3)
    assert mask[0, :12].tolist() == [*range(11), IGNORE]
    assert any("11 classes, mask value 11 is void and ignored" in note for note in data.notes)


def test_a_class_table_overrides_the_classes_of_camvid(tmp_path: Path) -> None:
    make_camvid(tmp_path, suffix=".png")
    classes = Classes.make([f"thing {i}" for i in range(12)])
    write_classes_toml(tmp_path / "classes.toml", classes)
    data = open_dataset(tmp_path)
    assert data.classes == classes
    assert any(f"12 classes from {tmp_path / 'classes.toml'}" in note for note in data.notes)


def test_camvid_reports_every_file_without_its_partner(tmp_path: Path) -> None:
    make_camvid(tmp_path, suffix=".jpg")
    (tmp_path / "trainannot/0001TP_train0.png").unlink()
    (tmp_path / "val/0001TP_val1.jpg").unlink()
    first, second = problems(tmp_path)
    assert first.startswith(f"{tmp_path / 'train/0001TP_train0.jpg'}: has no mask")
    assert second.startswith(f"{tmp_path / 'valannot/0001TP_val1.png'}: has no image")


def test_the_real_camvid_is_complete() -> None:
    if not CAMVID.is_dir():
        pytest.skip("no shared/camvid beside the repository: CamVid is not part of it")
    data = open_dataset(CAMVID, cache_bytes=0)
    assert {split: len(samples) for split, samples in data.splits.items()} == {
        "train": 367,
        "val": 101,
    }
    assert data.classes.names == camvid.CLASSES.names
    assert set(data.sizes.values()) == {(360, 480)}
    assert (data.pixel_counts["train"] > 0).all()


def test_a_dataset_has_a_short_repr(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path, splits={"train": 3, "val": 2})
    assert repr(open_dataset(str(tmp_path))) == (
        f"SegmentationData({str(tmp_path)!r}, layout 'folders', train 3, val 2, 3 classes: "
        "sky, road, car)"
    )


# Classes.


def test_classes_come_from_the_table(tmp_path: Path, make_folder_data: MakeData) -> None:
    classes = Classes.make(["a", "b"], values=[10, 20], ignore=30)
    make_folder_data(tmp_path, values=(10, 20, 30), classes=classes)
    data = open_dataset(tmp_path)
    assert data.classes == classes
    _, mask = data.read(data.splits["train"][0])
    assert mask[0, :3].tolist() == [0, 1, IGNORE]
    assert any(f"2 classes from {tmp_path / 'classes.toml'}" in note for note in data.notes)


@pytest.mark.parametrize(
    ("values", "expected", "assumed"),
    [
        ((0, 1, 2), Classes.make(["class_0", "class_1", "class_2"]), "3 classes from the mask"),
        (
            (1, 5, 255),
            Classes.make(["class_1", "class_5"], values=[1, 5], ignore=255),
            "2 classes from the mask values 1, 5; 255 is ignored",
        ),
        (
            (0, 255),
            Classes.make(["background", "foreground"], values=[0, 255]),
            "binary masks: 0 is background, 255 is foreground",
        ),
        ((0, 1), Classes.make(["class_0", "class_1"]), "2 classes from the mask values 0, 1"),
    ],
)
def test_without_a_table_the_classes_are_inferred_with_a_note(
    tmp_path: Path,
    make_folder_data: MakeData,
    values: tuple[int, ...],
    expected: Classes,
    assumed: str,
) -> None:
    make_folder_data(tmp_path, values=values, classes=None)
    data = open_dataset(tmp_path)
    assert data.classes == expected
    (note,) = [note for note in data.notes if note.startswith("assumed ")]
    assert assumed in note
    assert f"write {tmp_path / 'classes.toml'}" in note


def test_inferred_classes_use_the_colors_of_palette_masks(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path, classes=None)
    for path in (tmp_path / "masks").iterdir():
        save_mask(path, np.asarray(Image.open(path)), palette=bytes([9, 8, 7, 200, 1, 2, 3, 4, 5]))
    assert open_dataset(tmp_path).classes.colors == ((9, 8, 7), (200, 1, 2), (3, 4, 5))


def test_a_palette_of_one_color_is_not_used(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path, classes=None)
    for path in (tmp_path / "masks").iterdir():
        save_mask(path, np.asarray(Image.open(path)), palette=bytes(9))
    assert len(set(open_dataset(tmp_path).classes.colors)) == 3


def test_masks_with_too_many_values_are_refused(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path, values=tuple(range(65)), classes=None)
    line = problem(tmp_path)
    assert "the masks hold 65 different values" in line
    assert "blurred or resized masks?" in line


def test_rgb_masks_are_read_by_the_color_table(tmp_path: Path, make_folder_data: MakeData) -> None:
    classes = Classes.make(
        ["a", "b", "c"],
        colors=[(255, 0, 0), (0, 255, 0), (0, 0, 255)],
        ignore=255,
        ignore_color=(7, 7, 7),
    )
    make_folder_data(tmp_path, values=(0, 1, 2, 255), classes=classes)
    plain = open_dataset(tmp_path)
    expected = [plain.read(sample)[1] for sample in plain.splits["train"]]
    for path in (tmp_path / "masks").iterdir():
        save_mask(path, classes.color_table()[classes.to_index(np.asarray(Image.open(path)))])
    data = open_dataset(tmp_path)
    for sample, mask in zip(data.splits["train"], expected, strict=True):
        np.testing.assert_array_equal(data.read(sample)[1], mask)
    assert (data.pixel_counts["train"] == plain.pixel_counts["train"]).all()


# Pairs.


@pytest.mark.parametrize("colors", [False, True])
def test_the_cache_changes_nothing(
    tmp_path: Path, make_folder_data: MakeData, colors: bool
) -> None:
    classes = Classes.make(["a", "b", "c"], values=[5, 6, 7], ignore=9)
    make_folder_data(tmp_path, values=(5, 6, 7, 9), classes=classes)
    if colors:
        for path in (tmp_path / "masks").iterdir():
            save_mask(path, classes.color_table()[classes.to_index(np.asarray(Image.open(path)))])
    cached = open_dataset(tmp_path)
    for cache_bytes in (0, 24 * 32 * 4):  # none, and the first pair only
        plain = open_dataset(tmp_path, cache_bytes=cache_bytes)
        assert plain.splits == cached.splits
        for split in ("train", "val"):
            np.testing.assert_array_equal(plain.pixel_counts[split], cached.pixel_counts[split])
            for sample in plain.splits[split]:
                for one, other in zip(plain.read(sample), cached.read(sample), strict=True):
                    np.testing.assert_array_equal(one, other)
    shutil.rmtree(tmp_path / "images")
    cached.read(cached.splits["train"][0])
    with pytest.raises(InputError, match="does not exist"):
        plain.read(plain.splits["val"][-1])


def test_pixel_counts_leave_out_ignored_pixels(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path, splits={"train": 2, "val": 1}, values=(0, 1, 2, 255))
    data = open_dataset(tmp_path)
    for split, samples in data.splits.items():
        masks = np.stack([data.read(sample)[1] for sample in samples])
        assert data.pixel_counts[split].tolist() == [(masks == i).sum() for i in range(3)]
        assert data.pixel_counts[split].sum() < masks.size


def test_an_image_and_its_mask_may_have_different_formats(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path, count=2)
    image = tmp_path / "images" / "000.png"
    Image.open(image).save(image.with_suffix(".JPG"))
    image.unlink()
    mask = tmp_path / "masks" / "000.png"
    Image.open(mask).save(mask.with_suffix(".tif"))
    mask.unlink()
    data = open_dataset(tmp_path)
    assert sorted(names(data, "train") + names(data, "val")) == ["images/000", "images/001"]


def test_masks_without_a_table_are_read_by_the_bundles_classes(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    classes = Classes.make(["a", "b", "c", "d"])
    make_folder_data(tmp_path, classes=None)
    data = open_dataset(tmp_path, classes=classes)
    assert data.classes == classes
    assert any("read by the bundle's classes" in note for note in data.notes)


def test_classes_that_differ_from_the_bundles_are_refused(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path)
    with pytest.raises(
        InputError, match="the dataset's classes are sky, road, car, but the bundle's are x, y"
    ):
        open_dataset(tmp_path, classes=Classes.make(["x", "y"]))


def test_progress_reaches_the_number_of_pairs(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path, count=5)
    calls: list[tuple[int, int]] = []
    open_dataset(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 5) for i in range(1, 6)]


def test_files_that_are_not_images_are_skipped_with_a_note(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path)
    for name in ("images/Thumbs.db", "images/._000.png", "images/a.csv", "masks/readme.txt"):
        (tmp_path / name).touch()
    notes = open_dataset(tmp_path).notes
    for path in (tmp_path / "images" / "a.csv", tmp_path / "masks" / "readme.txt"):
        assert f"skipped, not an image: {path}" in notes
    assert not any("Thumbs.db" in note or "._000" in note for note in notes)


# Problems: each is one line with the file and the remedy.


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "does not exist: give the folder" in problem(tmp_path / "absent")


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is a file: give the folder" in problem(tmp_path / "file")


def test_an_unknown_layout_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    line = problem(tmp_path)
    assert "images/ and masks/" in line
    assert "CamVid" in line


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_missing_images_or_masks_folder_is_reported(
    tmp_path: Path, make_folder_data: MakeData, kind: str
) -> None:
    make_folder_data(tmp_path)
    shutil.rmtree(tmp_path / kind)
    assert problem(tmp_path) == f"{tmp_path / kind}: does not exist: put the {kind} into it"


def test_an_empty_images_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert problem(tmp_path).startswith(f"{tmp_path / 'images'}: contains no images: put images")


def test_a_single_pair_cannot_be_divided(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path, count=1)
    assert "at least 2 are needed" in problem(tmp_path)


def test_an_image_without_a_mask_is_reported(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path)
    (tmp_path / "masks" / "001.png").unlink()
    assert problem(tmp_path) == (
        f"{tmp_path / 'images' / '001.png'}: has no mask: add "
        f"{tmp_path / 'masks' / '001.png'}, or remove the image"
    )


def test_a_mask_without_an_image_is_reported(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path)
    (tmp_path / "images" / "001.png").unlink()
    assert problem(tmp_path) == (
        f"{tmp_path / 'masks' / '001.png'}: has no image: add "
        f"{tmp_path / 'images' / '001'}.jpg or .png, or remove the mask"
    )


def test_an_image_outside_the_split_folders_is_reported(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path, splits={"train": 2, "val": 1})
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "stray.png")
    assert "stray.png: is beside the folder train/: move it" in problem(tmp_path)


def test_a_mask_of_another_size_is_reported(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path)
    save_mask(tmp_path / "masks" / "002.png", np.zeros((24, 31)))
    assert problem(tmp_path) == (
        f"{tmp_path / 'masks' / '002.png'}: the mask is 31x24 but its image 002.png is 32x24: make "
        "them the same size"
    )


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_an_image_that_exif_rotates_away_from_its_mask_is_reported(
    tmp_path: Path, make_folder_data: MakeData, suffix: str
) -> None:
    make_folder_data(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = tmp_path / "images" / "002.png"
    Image.open(image).save(image.with_suffix(suffix), exif=exif)
    image.unlink()
    line = problem(tmp_path)
    assert line == (
        f"{tmp_path / 'masks' / '002.png'}: the mask is 32x24 but its image 002{suffix} is 24x32: "
        "the EXIF orientation rotates the image, rotate the mask the same way"
    )


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_a_value_outside_the_classes_is_reported(
    tmp_path: Path, make_folder_data: MakeData, cache_bytes: int
) -> None:
    make_folder_data(tmp_path)
    save_mask(tmp_path / "masks" / "003.png", np.full((24, 32), 7))
    with pytest.raises(InputError) as raised:
        open_dataset(tmp_path, cache_bytes=cache_bytes)
    assert raised.value.problems == (
        f"{tmp_path / 'masks' / '003.png'}: mask value 7 is not among the classes (0..2, 255 "
        "ignored): correct the mask or the class table",
    )


@pytest.mark.parametrize("count", [1, 3])
def test_masks_with_255_and_a_table_without_ignore_are_one_problem(
    tmp_path: Path, make_folder_data: MakeData, count: int
) -> None:
    make_folder_data(tmp_path, classes=Classes.make(["sky", "road", "car"]))
    for number in range(count):
        mask = np.full((24, 32), 255)
        mask[:4] = 1
        save_mask(tmp_path / "masks" / f"00{number}.png", mask)
    holders = "this mask holds" if count == 1 else "3 masks hold"
    assert problem(tmp_path) == (
        f"{tmp_path / 'masks' / '000.png'}: mask value 255 is not among the classes (0..2); "
        f"{holders} it: write `ignore = 255` into {tmp_path / 'classes.toml'} if it marks pixels "
        "to ignore, or correct the masks"
    )


def test_a_color_outside_the_table_is_reported(tmp_path: Path, make_folder_data: MakeData) -> None:
    make_folder_data(tmp_path)
    save_mask(tmp_path / "masks" / "003.png", np.full((24, 32, 3), (1, 2, 3)))
    line = problem(tmp_path)
    assert line.startswith(f"{tmp_path / 'masks' / '003.png'}: color (1, 2, 3) is not in the")
    assert "classes.toml" in line


@pytest.mark.parametrize("table", [None, '[[class]]\nname = "a"\n[[class]]\nname = "b"\n'])
def test_an_rgb_mask_without_a_color_table_is_reported(
    tmp_path: Path, make_folder_data: MakeData, table: str | None
) -> None:
    make_folder_data(tmp_path, values=(0, 1), classes=None)
    if table is not None:
        (tmp_path / "classes.toml").write_text(table)  # names without colors
    save_mask(tmp_path / "masks" / "003.png", np.full((24, 32, 3), (0, 0, 1)))
    line = problem(tmp_path)
    assert line.startswith(f"{tmp_path / 'masks' / '003.png'}: the mask is RGB, but no table")
    assert f"write {tmp_path / 'classes.toml'}" in line


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize(("fraction", "message"), [(0, "is empty (0 bytes)"), (0.6, "cut off")])
def test_a_truncated_file_is_reported(
    tmp_path: Path, make_folder_data: MakeData, kind: str, fraction: float, message: str
) -> None:
    make_folder_data(tmp_path)
    path = tmp_path / kind / "001.png"
    complete = path.read_bytes()
    path.write_bytes(complete[: int(len(complete) * fraction)])
    line = problem(tmp_path)
    assert line.startswith(f"{path}: ")
    assert message in line
    assert "restore the file" in line


def test_two_images_with_the_same_name_are_reported(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path)
    Image.new("RGB", (32, 24)).save(tmp_path / "images" / "001.jpg")
    assert problem(tmp_path) == (
        f"{tmp_path / 'images' / '001.png'}: has the same name as 001.jpg: rename one and its mask"
    )


def test_two_masks_with_the_same_name_are_reported(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    make_folder_data(tmp_path)
    save_mask(tmp_path / "masks" / "001.tif", np.zeros((24, 32)))
    assert problem(tmp_path) == (
        f"{tmp_path / 'masks' / '001.tif'}: has the same name as 001.png: keep one mask per image"
    )


@pytest.mark.parametrize("name", ["extra.psd", "extra.SVG", "extra.npz", "extra.dng"])
def test_an_image_in_an_unsupported_format_is_reported(
    tmp_path: Path, make_folder_data: MakeData, name: str
) -> None:
    make_folder_data(tmp_path)
    (tmp_path / "images" / name).write_bytes(b"pixels")
    line = problem(tmp_path)
    assert line.startswith(f"{tmp_path / 'images' / name}: has an unsupported format (allowed:")
    assert ".jpg" in line


@pytest.mark.parametrize(
    ("suffix", "message"),
    [(".jpg", "JPEG compression blurs"), (".webp", "has an unsupported format")],
)
def test_masks_in_a_lossy_format_are_reported(
    tmp_path: Path, make_folder_data: MakeData, suffix: str, message: str
) -> None:
    make_folder_data(tmp_path)
    mask = tmp_path / "masks" / "001.png"
    Image.open(mask).save(mask.with_suffix(suffix))
    mask.unlink()
    lines = problems(tmp_path)
    assert lines[0].startswith(f"{mask.with_suffix(suffix)}: {message}")


@pytest.mark.parametrize("table", [True, False])
def test_every_problem_is_reported_on_its_own_line(
    tmp_path: Path, make_folder_data: MakeData, table: bool
) -> None:
    make_folder_data(tmp_path, count=8, classes=Classes.make(["a", "b", "c"]) if table else None)
    empty, cut, small, odd = (
        tmp_path / "images" / "000.png",
        tmp_path / "masks" / "001.png",
        tmp_path / "masks" / "002.png",
        tmp_path / "masks" / "004.png",
    )
    both = [tmp_path / kind / "003.png" for kind in ("images", "masks")]
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:-60])
    save_mask(small, np.zeros((2, 3)))
    for path in both:
        path.write_text("no image")
    save_mask(odd, np.arange(24 * 32).reshape(24, 32) % 100)  # wrong only with a table
    lines = problems(tmp_path)
    expected = [empty, cut, small, *both] + ([odd] if table else [])
    assert sorted(line.split(": ")[0] for line in lines) == sorted(map(str, expected))
