"""Faults in dataset folders of other tools: each one is reported in one line."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixture_types import Cli
from miniatures import (
    MINIATURES,
    blobs,
    coco,
    label_studio,
    plain,
    splits_above,
    write_image,
    write_mask,
    yolo,
)
from pixelwise.data import layouts
from pixelwise.data.classes import Classes, write_classes_toml
from pixelwise.data.convert_dataset import convert_data
from pixelwise.data.dataset import open_dataset
from pixelwise.errors import InputError


def first_file(root: Path, pattern: str) -> Path:
    return sorted(root.rglob(pattern))[0]


def edit_json(path: Path, change: Callable[[Any], object]) -> Path:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def replace_text(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def remove(path: Path) -> Path:
    path.unlink()
    return path


def coco_file(root: Path) -> Path:
    return root / "annotations" / "instances_train.json"


def set_annotation(content: Any, **values: Any) -> None:
    content["annotations"][0].update(values)


def constant_mask(root: Path, pattern: str, value: Any) -> Path:
    path = first_file(root, pattern)
    write_mask(path, np.full((40, 56), value, dtype=np.uint8))
    return path


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


# Fault: the miniature, a function that damages it and returns the path to report, the message.
FAULTS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "pairs: no such file": (
        "pair lists",
        lambda root: remove(root / "truth" / "photo_1.png"),
        "does not exist, but line 2 of .*train.txt names it: add the file or correct",
    ),
    "pairs: three columns": (
        "pair lists",
        lambda root: replace_text(root / "train.txt", "truth/photo_1.png", "truth/photo_1.png\tx"),
        "line 2 has 3 columns",
    ),
    "pairs: in two lists": (
        "pair lists",
        lambda root: (
            shutil.copy(root / "train.txt", root / "val.txt").parent / "images" / "photo_0.jpg"
        ),
        "is in train and in val: keep it in one split",
    ),
    "suffixes: no mask": (
        "suffixes",
        lambda root: remove(root / "photo_1_mask.png").with_name("photo_1.jpg"),
        "has no mask: add ",
    ),
    "arrays: two channels at one pixel": (
        "one-hot arrays",
        lambda root: (
            np.save(path := root / "masks" / "photo_1.npy", np.ones((40, 56, 3), np.uint8)),
            path,
        )[1],
        "3 channels are set at row 0, column 0",
    ),
    "arrays: probabilities": (
        "one-hot arrays",
        lambda root: (
            np.save(path := root / "masks" / "photo_1.npy", np.full((40, 56, 3), 0.3)),
            path,
        )[1],
        r"save the class of each pixel \(argmax\)",
    ),
    "arrays: cut off": (
        "one-hot arrays",
        lambda root: truncate(root / "masks" / "photo_1.npy"),
        "save it with numpy.save",
    ),
    "voc: name without image": (
        "voc",
        lambda root: remove(root / "JPEGImages" / "photo_1.jpg"),
        "does not exist, but .*train.txt lists it: add the file or correct",
    ),
    "voc: name without mask": (
        "voc",
        lambda root: remove(root / "SegmentationClass" / "photo_1.png"),
        "does not exist, but .*train.txt lists it: add the file or correct",
    ),
    "voc: name twice": (
        "voc",
        lambda root: replace_text(
            root / "ImageSets/Segmentation/train.txt", "photo_1", "photo_1\nphoto_1"
        ),
        "lists photo_1 twice: remove one",
    ),
    "voc: value of no class": (
        "voc",
        lambda root: constant_mask(root, "SegmentationClass/photo_1.png", 21),
        r"mask value 21 is not among the classes \(0\.\.20, 255 ignored\)",
    ),
    "sbd: damaged": ("sbd", lambda root: truncate(first_file(root, "*.mat")), "restore the file"),
    "cityscapes: no mask": (
        "cityscapes",
        lambda root: (
            remove(first_file(root, "bonn*_gtFine_labelIds.png")),
            first_file(root, "bonn*_leftImg8bit.png"),
        )[1],
        "has no mask: add ",
    ),
    "ade20k: value over 150": (
        "ade20k",
        lambda root: constant_mask(root, "annotations/training/*.png", 151),
        r"mask value 151 is not among the classes \(1\.\.150, 0 ignored\)",
    ),
    "camvid: unknown color": (
        "camvid 32",
        lambda root: (
            write_mask(path := first_file(root, "*_L.png"), np.full((40, 56, 3), 77, np.uint8)),
            path,
        )[1],
        r"color \(77, 77, 77\) is not in the class table",
    ),
    "camvid: bad table": (
        "camvid 32 repacked",
        lambda root: replace_text(root / "class_dict.csv", "64, 128, 64", "64, 128"),
        "line 2: write name, r, g, b",
    ),
    "coco: cut off": ("coco", lambda root: truncate(coco_file(root)), "invalid JSON"),
    "coco: image absent": (
        "coco",
        lambda root: (remove(root / "images/train/photo_1.jpg"), coco_file(root))[1],
        "image 'photo_1.jpg' is not in .*: add it, or remove the reference",
    ),
    "coco: boxes": (
        "coco",
        lambda root: edit_json(coco_file(root), lambda c: set_annotation(c, segmentation=[])),
        r"annotations have a box but no polygon \(1: id 0\): add polygons",
    ),
    "coco: unknown category": (
        "coco",
        lambda root: edit_json(coco_file(root), lambda c: set_annotation(c, category_id=4)),
        "annotation 0 refers to category 4, which the file does not list: remove it",
    ),
    "coco: odd polygon": (
        "coco",
        lambda root: edit_json(
            coco_file(root), lambda c: set_annotation(c, segmentation=[[1, 2, 3]])
        ),
        "annotation 0: a polygon has 3 numbers, so that a corner has x but no y",
    ),
    "coco: neither polygon nor RLE": (
        "coco",
        lambda root: edit_json(
            coco_file(root), lambda c: set_annotation(c, segmentation={"counts": 3})
        ),
        "annotation 0: its segmentation is neither polygons nor RLE",
    ),
    "coco: RLE too short": (
        "coco",
        lambda root: edit_json(
            coco_file(root),
            lambda c: set_annotation(c, segmentation={"size": [40, 56], "counts": [7, 9]}),
        ),
        "image photo_0.jpg: RLE counts cover 16 pixels but the image has 2240",
    ),
    "coco: another size": (
        "coco",
        lambda root: edit_json(
            coco_file(root), lambda c: c["images"][0].update(height=56, width=40)
        ),
        "the file gives 40x56 for photo_0.jpg, but the image is 56x40: its EXIF orientation",
    ),
    "coco: no categories": (
        "coco",
        lambda root: edit_json(coco_file(root), lambda c: c.pop("categories")),
        "categories = None",
    ),
    "coco: a name twice": (
        "coco",
        lambda root: [
            edit_json(path, lambda c: c["categories"][0].update(name="car"))
            for path in sorted(root.glob("annotations/instances_*.json"), reverse=True)
        ][1],
        "categories 3 and 7 are both named 'car': rename one",
    ),
    "coco: names that differ": (
        "coco",
        lambda root: edit_json(
            root / "annotations/instances_val.json",
            lambda c: c["categories"][0].update(name="lane"),
        ),
        "category 3 is 'lane' here but 'road' in .*instances_train.json: export the files together",
    ),
    "coco-stuff: bad names": (
        "coco-stuff",
        lambda root: replace_text(root / "labels.txt", "2: bicycle", "bicycle"),
        "line 3: write the id, a colon and the name",
    ),
    "labelme: a line": (
        "labelme",
        lambda root: edit_json(
            root / "photo_1.json", lambda c: c["shapes"][0].update(shape_type="linestrip")
        ),
        r"shape 0 \(road\): shape_type 'linestrip' is not supported \(allowed: polygon, ",
    ),
    "geojson: a line": (
        "geojson",
        lambda root: edit_json(
            root / "photo_1.geojson",
            lambda c: c["features"][0]["geometry"].update(type="LineString"),
        ),
        "a feature is a 'LineString': draw polygons, or remove it",
    ),
    "geojson: no class": (
        "geojson",
        lambda root: edit_json(
            root / "photo_1.geojson", lambda c: c["features"][0]["properties"].clear()
        ),
        "feature 0: class = None",
    ),
    "geojson: image absent": (
        "geojson",
        lambda root: root / f"{remove(root / 'images' / 'photo_1.jpg').stem}.geojson",
        "its image 'photo_1' does not exist",
    ),
    "geojson: on the ground": (
        "geojson",
        lambda root: edit_json(
            root / "photo_1.geojson",
            lambda c: c.update(crs={"properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}),
        ),
        "is in urn:ogc:def:crs:EPSG::32633, but .*photo_1.jpg has no georeference",
    ),
    "labelme: cut off": (
        "labelme",
        lambda root: truncate(root / "photo_1.json"),
        "invalid JSON",
    ),
    "labelme: image absent": (
        "labelme",
        lambda root: remove(root / "photo_1.jpg").with_suffix(".json"),
        "image 'photo_1.jpg' does not exist: put it beside the JSON file",
    ),
    "labelme: a label that is not listed": (
        "labelme",
        lambda root: (
            (path := root / "labels.txt").write_text("__ignore__\n_background_\ncar\nroad\npole\n"),
            path,
        )[1],
        "does not list tree, used by shapes: add lines",
    ),
    "cvat: images absent": (
        "cvat",
        lambda root: (shutil.rmtree(root / "JPEGImages"), root)[1],
        "export from CVAT with 'Save images'",
    ),
    "cvat: bad table": (
        "cvat",
        lambda root: replace_text(root / "labelmap.txt", "250,50,83", "250,50"),
        "line 3: write name:r,g,b::",
    ),
    "roboflow: no mask": (
        "roboflow",
        lambda root: remove(root / "train" / "photo_1_mask.png").with_name("photo_1.jpg"),
        "has no mask: add ",
    ),
    "roboflow: tables that differ": (
        "roboflow",
        lambda root: replace_text(root / "valid" / "_classes.csv", "leaf", "blade"),
        "differs from .*_classes.csv: export the splits together",
    ),
    "yolo: a box": (
        "yolo",
        lambda root: (
            (path := root / "labels/train/photo_1.txt").write_text("0 0.5 0.5 0.1 0.1\n"),
            path,
        )[1],
        "line 1: is a box, not a polygon: export polygons",
    ),
    "yolo: pixels": (
        "yolo",
        lambda root: (
            (path := root / "labels/train/photo_1.txt").write_text("0 5 5 40 5 40 30\n"),
            path,
        )[1],
        "line 1: a corner is at 40: write fractions of the width and height",
    ),
    "yolo: unknown class": (
        "yolo",
        lambda root: (
            (path := root / "labels/train/photo_1.txt").write_text("3 0 0 0.4 0.5 0.4 0.3\n"),
            path,
        )[1],
        r"line 1: class 3 is not in data.yaml \(0 to 2\): correct the class",
    ),
    "yolo: label without image": (
        "yolo",
        lambda root: (
            remove(root / "images/train/photo_1.jpg"),
            root / "labels/train/photo_1.txt",
        )[1],
        "has no image: add ",
    ),
    "yolo: no names": (
        "yolo",
        lambda root: replace_text(root / "data.yaml", "names:", "others:"),
        "has no names: write",
    ),
    "yolo: broken yaml": (
        "yolo",
        lambda root: replace_text(root / "data.yaml", "names:", "names: ["),
        "invalid YAML",
    ),
    "ultralytics: value of no class": (
        "ultralytics",
        lambda root: constant_mask(root, "masks/train/photo_1.png", 2),
        r"mask value 2 is not among the classes \(0\.\.1, 255 ignored\)",
    ),
    "label studio: rectangles": (
        "label studio",
        lambda root: edit_json(
            root / "project-1-at-2026.json",
            lambda tasks: tasks[0]["annotations"][1]["result"][0].update(
                type="rectanglelabels", value={"rectanglelabels": ["car"], "x": 3}
            ),
        ),
        r"task 0: car: its x, y, width and height are \[3, None, None, None\]: give percentages",
    ),
    "label studio: brush cut off": (
        "label studio",
        lambda root: edit_json(
            root / "project-1-at-2026.json",
            lambda tasks: tasks[0]["annotations"][1]["result"][0]["value"]["rle"].pop(),
        ),
        "image photo_0.jpg: brush RLE is cut off",
    ),
    "label studio: image absent": (
        "label studio",
        lambda root: (remove(root / "images/photo_1.jpg"), root / "project-1-at-2026.json")[1],
        "task 1: its image '/data/upload/1/0a1b2c3d-photo_1.jpg' is not in .*: put it there",
    ),
    "label studio: png without json": (
        "label studio png",
        lambda root: remove(root / "project-1-at-2026.json").parent / "brush",
        "export the same project as JSON too",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line_with_the_file_and_the_remedy(tmp_path: Path, fault: str) -> None:
    name, damage, message = FAULTS[fault]
    root = tmp_path / "data"
    root.mkdir()
    MINIATURES[name](root)
    path = damage(root)
    with pytest.raises(InputError) as raised:
        open_dataset(root)
    line = raised.value.problems[0]
    assert len(raised.value.problems) == (3 if "two lists" in fault else 1)
    assert line.startswith(f"{path}: ")
    assert re.search(message, line), line
    assert "\n" not in line


def test_the_error_names_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MINIATURES["sbd"](tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(InputError, match=r"pip install 'scipy>=1\.14'"):
        open_dataset(tmp_path)


def nodes(content: Any, *, depth: int = 0) -> list[tuple[Any, Any]]:
    """(container, key) of the nodes of a JSON document, up to two entries of each list."""
    keys = list(content) if isinstance(content, dict) else range(min(2, len(content)))
    found = [(content, key) for key in keys]
    for key in keys:
        if isinstance(content[key], (dict, list)) and depth < 7:
            found += nodes(content[key], depth=depth + 1)
    return found


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("coco", "instances_train.json"),
        ("labelme", "photo_0.json"),
        ("label studio", "*.json"),
        pytest.param("geojson", "photo_0.geojson", marks=pytest.mark.slow),
    ],
)
def test_a_json_file_with_any_damaged_value_is_read_or_refused(
    tmp_path: Path, name: str, pattern: str
) -> None:
    MINIATURES[name](tmp_path)
    path = first_file(tmp_path, pattern)
    intact = path.read_text()
    refused: list[str] = []
    for index in range(len(nodes(json.loads(intact)))):
        for odd in (None, -1, 1e308, "x", "", [], {}, [[]], [{}], True):
            content = json.loads(intact)
            container, key = nodes(content)[index]
            container[key] = odd
            path.write_text(json.dumps(content))
            try:
                for samples in layouts.read(tmp_path).splits.values():
                    for sample in samples[:1]:
                        sample.mask.read((40, 56))
            except InputError as error:
                refused += error.problems
    assert len(refused) > 50
    assert [line for line in refused if not line.startswith(str(tmp_path))] == []


# Choices that a format leaves open are reported in notes.


def notes(root: Path) -> str:
    return "\n".join(open_dataset(root, draw_val=False).notes)


def test_images_without_annotation_are_background_and_counted(tmp_path: Path) -> None:
    for write in (coco, yolo):
        root = tmp_path / write.__name__
        root.mkdir()
        write(root)
        assert re.search(
            r"images without (an annotation|objects) \(all background\): 1 of 5", notes(root)
        )


def test_skipped_images_are_counted(tmp_path: Path) -> None:
    label_studio(tmp_path)
    assert "tasks skipped because they have no annotation: 1" in notes(tmp_path)
    root = tmp_path / "labelme"
    root.mkdir()
    MINIATURES["labelme"](root)
    write_image(root / "another.jpg", 9)
    assert "images skipped because they have no JSON file: 1" in notes(root)
    root = tmp_path / "voc"
    root.mkdir()
    MINIATURES["voc"](root)
    assert "test is skipped: none of its images has a mask (1 listed)" in notes(root)


def test_overlapping_shapes_follow_the_rule_of_the_format(tmp_path: Path) -> None:
    """labelme puts later shapes on top. COCO and YOLO put smaller ones on top (see miniatures)."""
    root = tmp_path / "labelme"
    root.mkdir()
    MINIATURES["labelme"](root)
    before = open_dataset(root, draw_val=False)
    edit_json(root / "photo_0.json", lambda content: content["shapes"].reverse())
    after = open_dataset(root, draw_val=False)
    car = before.classes.names.index("car")
    masks = [data.read(data.splits["all"][0])[1] for data in (before, after)]
    counts = [int((mask == car).sum()) for mask in masks]
    # First the pole covers 4 pixels of the car; then the road covers its rows from 25 on.
    assert counts == [16 * 11 - 4, 16 * 5]


# Masks without a class table.


def test_masks_with_soft_edges_are_refused(tmp_path: Path) -> None:
    splits_above(tmp_path)
    path = first_file(tmp_path, "labels/*.png")
    with Image.open(path) as image:
        stored = np.array(image)
    stored[0, :4] = [3, 40, 200, 251]
    write_mask(path, stored)
    with pytest.raises(InputError, match=r"0 and 255 with soft edges, as in a JPEG"):
        open_dataset(tmp_path)


def test_too_many_colors_are_refused(tmp_path: Path) -> None:
    MINIATURES["suffixes in two folders"](tmp_path)
    path = first_file(tmp_path, "*_gt.png")
    stored = np.zeros((40, 56, 3), dtype=np.uint8)
    stored[..., 1] = np.arange(56)
    stored[..., 2] = np.arange(40)[:, None]
    write_mask(path, stored)
    with pytest.raises(InputError, match=r"different colors in the RGB masks, too many"):
        open_dataset(tmp_path)


def test_inferred_colors_are_in_the_notes(tmp_path: Path) -> None:
    MINIATURES["suffixes in two folders"](tmp_path)
    assert "color_2 (10, 20, 200)" in notes(tmp_path)


@pytest.mark.parametrize("scale", [1, 255])
def test_index_masks_saved_as_rgb_are_read_as_indices(tmp_path: Path, scale: int) -> None:
    plain(tmp_path)
    expected = {}
    for path in (tmp_path / "masks").rglob("*.png"):
        mask = blobs(int(path.stem[-1]), 2) * np.uint8(scale)
        expected[path.stem] = mask > 0
        write_mask(path, np.repeat(mask[..., None], 3, axis=2))
    for cache in (0, 1 << 30):
        data = open_dataset(tmp_path, cache_bytes=cache)
        assert "all RGB masks are gray: they are read as index masks" in "\n".join(data.notes)
        assert data.classes.values == (0, scale)
        for samples in data.splits.values():
            for sample in samples:
                stem = sample.image.stem
                np.testing.assert_array_equal(data.read(sample)[1], expected[stem])


def test_an_all_black_rgb_mask_needs_a_class_of_that_color(tmp_path: Path) -> None:
    plain(tmp_path)
    write_classes_toml(
        tmp_path / "classes.toml", Classes.make(["a", "b"], colors=[(9, 9, 9), (1, 2, 3)])
    )
    for path in (tmp_path / "masks").rglob("*.png"):
        write_mask(path, np.zeros((40, 56, 3), dtype=np.uint8))
    with pytest.raises(InputError, match=r"color \(0, 0, 0\) is not in the class table"):
        open_dataset(tmp_path)


def test_sixteen_bit_masks_need_a_class_table_only_for_large_values(tmp_path: Path) -> None:
    plain(tmp_path)
    for path in (tmp_path / "masks").rglob("*.png"):
        write_mask(path, blobs(int(path.stem[-1]), 3).astype(np.uint16))
    assert open_dataset(tmp_path).classes.values == (0, 1, 2)
    for path in (tmp_path / "masks").rglob("*.png"):
        write_mask(path, blobs(int(path.stem[-1]), 3).astype(np.uint16) * 1000)
    with pytest.raises(InputError, match=r"16-bit masks hold values over 255 \(0, 1000, 2000\)"):
        open_dataset(tmp_path)
    write_classes_toml(
        tmp_path / "classes.toml", Classes.make(["a", "b", "c"], values=[0, 1000, 2000])
    )
    for cache in (0, 1 << 30):
        data = open_dataset(tmp_path, cache_bytes=cache)
        for samples in data.splits.values():
            for sample in samples:
                expected = blobs(int(sample.image.stem[-1]), 3)
                np.testing.assert_array_equal(data.read(sample)[1], expected)


# convert-data.


def test_convert_data_writes_folders_and_prints_its_findings(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "coco"
    root.mkdir()
    coco(root)
    result = cli("convert-data", root, tmp_path / "plain")
    assert (result.code, result.err) == (0, "")
    for words in ("coco", "train 3, val 2", "background, road, car, tree", "smaller objects are"):
        assert words in result.out
    plain_root = tmp_path / "plain"
    written = {path.relative_to(plain_root).as_posix() for path in plain_root.rglob("*.*")}
    names = [f"train/photo_{i}" for i in range(3)] + [f"val/photo_{i}" for i in (3, 4)]
    assert written == {
        "classes.toml",
        *(f"images/{name}.jpg" for name in names),
        *(f"masks/{name}.png" for name in names),
    }


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("data", "is inside .*data, or contains it"),
        ("data/plain", "is inside .*data, or contains it"),
        (".", "is inside .*data, or contains it"),
        ("file", "is a file"),
        ("full", "the folder has notes.txt: give a new or an empty folder"),
        ("earlier", "the folder already has images: give a new folder, or add --overwrite"),
    ],
)
def test_a_target_with_content_is_refused(
    cli: Cli, tmp_path: Path, target: str, message: str
) -> None:
    (tmp_path / "data").mkdir()
    plain(tmp_path / "data")
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    (tmp_path / "earlier" / "images").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    result = cli("convert-data", tmp_path / "data", tmp_path / target)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert re.search(message, line), line
    assert sorted(tmp_path.rglob("*")) == before


def test_overwrite_replaces_an_earlier_conversion_but_removes_no_file(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    plain(tmp_path / "data")
    earlier = tmp_path / "earlier"
    command = ("convert-data", tmp_path / "data", earlier, "--overwrite")
    assert cli(*command).code == 0
    written = {path: path.read_bytes() for path in earlier.rglob("*.*")}
    for path in written:
        path.write_bytes(b"changed")
    assert cli(*command).code == 0
    assert {path: path.read_bytes() for path in earlier.rglob("*.*")} == written
    assert len(open_dataset(earlier).splits["train"]) == 3
    (earlier / "images" / "old.jpg").write_text("mine")
    result = cli(*command)
    assert result.code == 2
    assert "holds 1 files that are no part of this conversion, such as images/old.jpg" in result.err
    assert (earlier / "images" / "old.jpg").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "earlier"}


def test_a_failed_conversion_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    plain(tmp_path / "data")

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pixelwise.data.convert_dataset.shutil.copyfile", disk_full)
    with pytest.raises(InputError, match="No space left on device"):
        convert_data(tmp_path / "data", tmp_path / "plain")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_images_with_the_same_name_in_several_folders_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "city"
    for city, number in (("bonn", 1), ("ulm", 2)):
        write_image(root / "leftImg8bit" / "train" / city / "a_leftImg8bit.png", number)
        write_mask(
            root / "gtFine" / "train" / city / "a_gtFine_labelTrainIds.png",
            np.full((40, 56), number, dtype=np.uint8),
        )
    convert_data(root, tmp_path / "plain")
    assert sorted(path.name for path in (tmp_path / "plain/masks/train").iterdir()) == [
        "leftImg8bit__train__bonn__a_leftImg8bit.png",
        "leftImg8bit__train__ulm__a_leftImg8bit.png",
    ]
