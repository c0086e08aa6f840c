"""Kinds of trouble with labels, asked of every layout: the right masks, or an error that says why.

A mask of the wrong image is the worst fault. Each kind changes the miniatures of all layouts in the
same way, and `OUTCOMES` says which layouts read the same masks all the same, and which refuse. A
new layout has to be added there.
"""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniatures import HEIGHT, MINIATURES, WIDTH, Expected, blobs, samples, write_image, write_mask
from pixelwise.data import layouts
from pixelwise.data.dataset import open_dataset
from pixelwise.errors import InputError

APPLE_DOUBLE = bytes([0, 5, 22, 7, 0, 2, 0, 0]) + b"Mac OS X" + bytes([0xB0]) * 40
PREFIX = "é 1, "


def structure(root: Path) -> Expected:
    """Folders that no layout knows."""
    expected = Expected("structure", ["class_0", "class_1", "class_2"])
    for split, number, stem in samples():
        mask = blobs(number, 3)
        write_image(root / "img_dir" / split / f"{stem}.png", number)
        write_mask(root / "ann_dir" / split / f"{stem}_gt.png", mask)
        expected.add(split, stem, mask)
    return expected


def stated(root: Path) -> Expected:
    """The same folders, described by data.toml."""
    expected = structure(root)
    patterns = "images = 'img_dir/{split}/{id}'\nmasks = 'ann_dir/{split}/{id}_gt'\n"
    (root / "data.toml").write_text(patterns)
    return replace(expected, layout="stated")


ALL = {**MINIATURES, "structure": structure, "stated": stated}

Made = tuple[str, Path, Expected, list[Path]]
Originals = Callable[[str], tuple[Path, Expected]]


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def check_masks(root: Path, expected: Expected, prefix: str = "") -> None:
    """Assert that the classes and the mask of each image are those of the miniature."""
    data = open_dataset(root, draw_val=False)
    assert list(data.classes.names) == expected.names
    for split, masks in expected.masks.items():
        samples = {nfc(sample.image.stem): sample for sample in data.splits[split]}
        assert sorted(samples) == sorted(prefix + stem for stem in masks)
        assert len(samples) == len(data.splits[split])
        for stem, mask in masks.items():
            np.testing.assert_array_equal(data.read(samples[prefix + stem])[1], mask, err_msg=stem)


def read_or_refused(root: Path, expected: Expected, outcome: str, names: list[str]) -> None:
    """Check the masks, or that one line of the error contains all `names`."""
    if outcome == "read":
        check_masks(root, expected)
        return
    with pytest.raises(InputError) as raised:
        open_dataset(root, draw_val=False)
    lines = raised.value.problems
    assert any(all(name in line for name in names) for line in lines), lines


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    """Write each miniature once. Tests must not modify it."""

    @cache
    def write(name: str) -> tuple[Path, Expected]:
        root = tmp_path_factory.mktemp("kinds") / "data"
        root.mkdir()
        return root, ALL[name](root)

    return write


def copy_of(name: str, originals: Originals, tmp_path: Path) -> tuple[Path, Expected]:
    original, expected = originals(name)
    return Path(shutil.copytree(original, tmp_path / "data")), deepcopy(expected)


@pytest.fixture(params=ALL)
def made(request: pytest.FixtureRequest, originals: Originals, tmp_path: Path) -> Made:
    """Name, folder and expected masks of a copy of a miniature, and its images."""
    root, expected = copy_of(request.param, originals, tmp_path)
    source = layouts.read(root)
    images = [sample.image for samples in source.splits.values() for sample in samples]
    return request.param, root, expected, images


# What happens if there is, for the first image,
# - another image of the same stem with another suffix,
# - another image of the same name in another folder,
# - another annotation.
# Layouts that name an image in full know which one is meant; others refuse. Images in no list, or
# without an annotation of their own, are left out where the layout allows that.
OUTCOMES = {
    "camvid": ("refused", "refused", "refused"),
    "camvid32": ("refused", "refused", "refused"),
    "cityscapes": ("refused", "refused", "read"),
    "ade20k": ("refused", "refused", "refused"),
    "voc": ("refused", "read", "refused"),
    "sbd": ("refused", "read", "read"),
    "cvat": ("refused", "read", "refused"),
    "coco": ("read", "read", "refused"),
    "coco-stuff": ("refused", "refused", "refused"),
    "labelme": ("read", "read", "refused"),
    "label-studio": ("read", "read", "refused"),
    "geojson": ("read", "read", "refused"),
    "roboflow": ("refused", "refused", "refused"),
    "ultralytics": ("refused", "refused", "refused"),
    "yolo": ("refused", "refused", "refused"),
    "class-masks": ("refused", "refused", "refused"),
    "folders": ("refused", "refused", "refused"),
    "structure": ("refused", "refused", "refused"),
    "stated": ("refused", "read", "refused"),
    "pair lists": ("read", "read", "read"),  # a miniature of `folders` that names files in full
}


def outcome(name: str, expected: Expected, kind: int) -> str:
    return OUTCOMES.get(name, OUTCOMES[expected.layout])[kind]


def test_every_layout_has_outcomes() -> None:
    modules = {layout.__name__.split(".")[-1].replace("_", "-") for layout in layouts.LAYOUTS}
    assert modules == OUTCOMES.keys() - {"pair lists", "structure", "stated"}


def test_hidden_files_change_nothing(made: Made) -> None:
    """macOS, Windows, Jupyter, file managers and network drives leave files in all folders."""
    _, root, expected, _ = made
    for path in [path for path in root.rglob("*") if path.is_file()]:
        (path.parent / f"._{path.name}").write_bytes(APPLE_DOUBLE)
        checkpoints = path.parent / ".ipynb_checkpoints"
        checkpoints.mkdir(exist_ok=True)
        shutil.copy(path, checkpoints / f"{path.stem}-checkpoint{path.suffix}")
    for folder in [root, *(path for path in root.rglob("[!.]*") if path.is_dir())]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"\0\0\0\1Bud1")
        for name in ("@eaDir", "__MACOSX", ".thumbnails"):
            write_image(folder / name / "photo_0.png", 77)
            (folder / name / "photo_0.json").write_text("{}")
            (folder / name / "photo_0.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    check_masks(root, expected)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_may_have_spaces_commas_and_accents(made: Made, form: str) -> None:
    """The names of the images have the Unicode form `form`; annotations have NFC."""
    _, root, expected, images = made
    stems = {image.stem.removesuffix("_leftImg8bit") for image in images}
    for stem in sorted(stems, key=len, reverse=True):
        for path in [path for path in root.rglob(f"*{stem}*") if path.is_file()]:
            renamed = path.name.replace(stem, PREFIX + stem)
            path.rename(
                path.parent / unicodedata.normalize(form if path in images else "NFC", renamed)
            )
    for path in root.rglob("*"):
        if path.suffix in {".json", ".geojson", ".txt", ".yaml"}:
            text = path.read_text()
            for stem in stems:
                text = text.replace(stem, PREFIX + stem)
            path.write_text(text)
    check_masks(root, expected, PREFIX)


def test_a_second_image_with_another_suffix(made: Made) -> None:
    name, root, expected, images = made
    second = images[0].with_suffix(".png" if images[0].suffix == ".jpg" else ".jpg")
    write_image(second, 88)
    read_or_refused(root, expected, outcome(name, expected, 0), [images[0].name, second.name])


def test_a_second_image_in_another_folder(made: Made) -> None:
    name, root, expected, images = made
    second = images[0].parent / "other" / images[0].name
    write_image(second, 88)
    named = "/other/" if expected.layout == "structure" else str(second)
    read_or_refused(root, expected, outcome(name, expected, 1), [named])


def add_annotation(root: Path, expected: Expected, image: Path) -> list[str]:
    """Add an annotation for an image that has one; return what the error must name."""
    if expected.layout == "coco":
        paths = (path for path in sorted(root.rglob("*.json")) if "captions" not in path.name)
        path = next(path for path in paths if image.name in path.read_text())
        content = json.loads(path.read_text())
        content["images"].append({**content["images"][0], "id": 4711})
        path.write_text(json.dumps(content))
        return [image.name, "4711"]
    if expected.layout in {"labelme", "geojson"}:
        path = image.with_suffix(".json")
        if expected.layout == "geojson":
            path = root / f"{image.stem}.geojson"
        shutil.copy(path, path.with_stem("copy"))
        return [image.name, path.name, f"copy{path.suffix}"]
    if expected.layout == "label-studio":
        path = next(root.glob("*.json"))
        tasks = json.loads(path.read_text())
        tasks.append({**tasks[0], "id": 4711})
        path.write_text(json.dumps(tasks))
        return [image.name, "4711"]
    if expected.layout == "yolo":
        path = next(p for p in root.rglob(f"{image.stem}.txt"))
        shutil.copy(path, path.with_stem(path.stem.upper()))
        return [path.stem.upper()]
    mask = next(
        sample.mask.path
        for samples in layouts.read(root).splits.values()
        for sample in samples
        if sample.image == image
    )
    shutil.copy(mask, mask.with_suffix(".bmp"))
    return [mask.name, mask.with_suffix(".bmp").name]


def test_a_second_annotation_of_an_image(made: Made) -> None:
    name, root, expected, images = made
    names = add_annotation(root, expected, images[0])
    read_or_refused(root, expected, outcome(name, expected, 2), names)


# References that another machine wrote.

FORMS = {
    "windows": "images\\{name}",
    "drive": "C:\\data\\set 1\\{name}",
    "home": "/home/someone/photos/{name}",
    "above": "..\\..\\media\\upload\\{name}",
    "nested": "images/1/{name}",
    "encoded": "s3://bucket/some%20folder/{name}",
    "signed": "https://bucket.s3.amazonaws.com/a/{name}?X-Amz-Date=20260101&X-Amz-Signature=0f.1a",
}


def write_references(root: Path, layout: str, write: Callable[[str], str]) -> None:
    """Replace the name of each image in the annotations by `write(name)`."""
    for path in root.rglob("*.json" if layout in {"coco", "labelme", "label-studio"} else "*.txt"):
        if layout == "coco":
            content = json.loads(path.read_text())
            for entry in content["images"]:
                entry["file_name"] = write(entry["file_name"])
            path.write_text(json.dumps(content))
        elif layout == "labelme":
            content = json.loads(path.read_text())
            content["imagePath"] = write(path.with_suffix(".jpg").name)
            path.write_text(json.dumps(content))
        elif layout == "label-studio":
            tasks = json.loads(path.read_text())
            for task in tasks:
                name = task["data"]["image"].rpartition("/")[2]
                task["data"]["image"] = write(name.rpartition("-")[2])
            path.write_text(json.dumps(tasks))
        elif path.stem.casefold() in {"train", "val", "train_aug"}:
            lines = [line.replace("\t", " ").split(" ") for line in path.read_text().splitlines()]
            names = ["\t".join(write(cell) for cell in line) for line in lines]
            path.write_text("\n".join(names) + "\n")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *product(["coco", "coco beside", "labelme", "label studio"], FORMS),
        *product(
            ["voc", "voc with sbd", "sbd", "cvat", "pair lists"],
            ["windows", "drive", "home", "above", "nested"],
        ),
    ],
)
def test_references_of_another_machine_are_found(
    originals: Originals, tmp_path: Path, name: str, form: str
) -> None:
    root, expected = copy_of(name, originals, tmp_path)
    write_references(root, expected.layout, lambda text: FORMS[form].format(name=text))
    check_masks(root, expected)


@pytest.mark.parametrize("form", ["windows", "drive", "home"])
def test_paths_of_another_machine_in_yolo_lists_are_found(
    originals: Originals, tmp_path: Path, form: str
) -> None:
    root, expected = copy_of("yolo", originals, tmp_path)
    for split in ("train", "val"):
        names = [path.name for path in sorted((root / "images" / split).iterdir())]
        lines = [FORMS[form].format(name=name) for name in names]
        (root / f"{split}.txt").write_text("\r\n".join(lines))
    paths = "path: D:\\sets\ntrain: D:\\sets\\train.txt\nval: .\\val.txt\n"
    (root / "data.yaml").write_text(f"{paths}names: [tree, car, road]\n")
    check_masks(root, expected)


# Names of classes.

TREE = "trée"
ODD_TREE = unicodedata.normalize("NFD", TREE) + " "


@pytest.mark.parametrize("name", ["coco", "labelme", "label studio", "yolo"])
def test_class_names_that_look_the_same_are_one_class(
    originals: Originals, tmp_path: Path, name: str
) -> None:
    root, expected = copy_of(name, originals, tmp_path)
    for number, path in enumerate(sorted([*root.rglob("*.json"), *root.rglob("*.yaml")])):
        text = path.read_text()
        if expected.layout == "label-studio":  # one file: the spelling differs inside
            text = text.replace('"tree"', f'"{ODD_TREE}"', 1)
        tree = f'"{TREE if number % 2 else ODD_TREE}"'
        path.write_text(text.replace('"tree"', tree).replace(": tree", f": {tree}"))
    expected.names[expected.names.index("tree")] = TREE
    check_masks(root, expected)


# What annotations say about their images.

SIZE_KEYS = {
    "coco": ("height", "width"),
    "labelme": ("imageHeight", "imageWidth"),
    "label studio": ("original_height", "original_width"),
}


def edit(root: Path, change: Callable[[Any], None]) -> None:
    """Apply `change` to each object in the annotation files."""

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            change(node)
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, dict | list):
                walk(child)

    for path in [path for path in root.rglob("*") if path.suffix in {".json", ".geojson"}]:
        content = json.loads(path.read_text())
        walk(content)
        path.write_text(json.dumps(content))


@pytest.mark.parametrize("number", [int, float, str])
@pytest.mark.parametrize("name", SIZE_KEYS)
def test_a_recorded_size_counts_however_its_numbers_are_written(
    originals: Originals, tmp_path: Path, name: str, number: type
) -> None:
    root, expected = copy_of(name, originals, tmp_path)
    height, width = SIZE_KEYS[name]

    def convert(node: Any) -> None:
        node |= {key: number(node[key]) for key in (height, width) if key in node}

    def exchange(node: Any) -> None:
        if height in node:
            node[height], node[width] = node[width], node[height]

    edit(root, convert)
    check_masks(root, expected)
    edit(root, exchange)
    with pytest.raises(InputError, match="exchange width and height in the file"):
        open_dataset(root, draw_val=False)


def divide(points: list[Any]) -> list[Any]:
    """Coordinates in pixels, flat or as pairs in any depth, as fractions of the image's size."""
    if not isinstance(points[0], list):
        return [x / (HEIGHT if k % 2 else WIDTH) for k, x in enumerate(points)]
    return [divide(each) for each in points]


@pytest.mark.parametrize("name", ["coco", "labelme", "geojson"])
def test_outlines_in_fractions_are_refused(originals: Originals, tmp_path: Path, name: str) -> None:
    root, _ = copy_of(name, originals, tmp_path)

    def change(node: Any) -> None:
        for key in ("segmentation", "points", "coordinates"):
            if isinstance(node.get(key), list) and node[key]:
                node[key] = divide(node[key])

    edit(root, change)
    with pytest.raises(InputError, match="every outline is smaller than a pixel") as raised:
        open_dataset(root, draw_val=False)
    files = {line.partition(": ")[0] for line in raised.value.problems}
    assert files == {str(path) for path in root.rglob("*") if json_with_outlines(path)}


def test_fractions_in_place_of_percentages_are_refused(
    originals: Originals, tmp_path: Path
) -> None:
    root, _ = copy_of("label studio", originals, tmp_path)

    def change(node: Any) -> None:
        for key in ("x", "y", "width", "height", "radiusX", "radiusY"):
            if isinstance(node.get(key), int | float):
                node[key] /= 100
        if isinstance(node.get("points"), list):
            node["points"] = (np.array(node["points"]) / 100).tolist()

    edit(root, change)
    with pytest.raises(InputError, match="would: write percentages, from 0 to 100"):
        open_dataset(root, draw_val=False)


def json_with_outlines(path: Path) -> bool:
    keys = ("segmentation", "points", "coordinates")
    is_read = path.suffix in {".json", ".geojson"} and not path.name.startswith("captions_")
    return is_read and any(key in path.read_text() for key in keys)


@pytest.mark.parametrize(("name", "key"), [("labelme", "imagePath"), ("geojson", "image")])
def test_an_annotation_whose_name_is_that_of_another_image_is_refused(
    originals: Originals, tmp_path: Path, name: str, key: str
) -> None:
    """Whoever renames the files leaves the names inside as they were."""
    root, _ = copy_of(name, originals, tmp_path)

    def change(node: Any) -> None:
        if "photo_0" in node.get(key, ""):
            node[key] = node[key].replace("photo_0", "photo_2")

    edit(root, change)
    message = (
        r"photo_0\.\w+: names the image photo_2\.jpg, but photo_0\.jpg has the name of the file"
    )
    with pytest.raises(InputError, match=message):
        open_dataset(root, draw_val=False)
