"""Every dataset layout is detected, read exactly, converted to folders, and trained on."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from miniatures import MINIATURES, Expected
from pixelwise.data import layouts
from pixelwise.data.classes import IGNORE
from pixelwise.data.convert_dataset import convert_data
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.polygons import Ellipse, Rectangle
from pixelwise.errors import InputError
from pixelwise.training import load_recipe, train
from settings import TINY

Made = Callable[[str], tuple[Path, Expected]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Write each miniature once, on demand. Tests must not modify it."""
    cache: dict[str, tuple[Path, Expected]] = {}

    def make(name: str) -> tuple[Path, Expected]:
        if name not in cache:
            root = tmp_path_factory.mktemp("format") / name.replace(" ", "-")
            root.mkdir()
            cache[name] = (root, MINIATURES[name](root))
        return cache[name]

    return make


def check(data: SegmentationData, expected: Expected, *, name: Callable[[Any], str]) -> None:
    assert list(data.classes.names) == expected.names
    if expected.colors is not None:
        assert list(data.classes.colors) == expected.colors
    assert (data.classes.ignore is not None) == expected.ignored
    found = {
        split: {name(sample): data.read(sample)[1] for sample in samples}
        for split, samples in data.splits.items()
    }
    assert {s: sorted(m) for s, m in found.items()} == {
        s: sorted(m) for s, m in expected.masks.items()
    }
    for split, masks in expected.masks.items():
        for stem, mask in masks.items():
            np.testing.assert_array_equal(found[split][stem], mask, err_msg=f"{split} {stem}")


@pytest.mark.parametrize("name", MINIATURES)
def test_exactly_one_layout_detects_a_miniature(made: Made, name: str) -> None:
    root, expected = made(name)
    found = [layout.__name__.split(".")[-1] for layout in layouts.LAYOUTS if layout.detect(root)]
    assert [module.replace("_", "-") for module in found] == [expected.layout]
    assert layouts.read(root).layout == expected.layout


@pytest.mark.parametrize("name", MINIATURES)
def test_detection_opens_few_files(
    made: Made, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = made(name)
    copy = tmp_path / "many"
    shutil.copytree(root, copy)
    for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        for file in [path for path in folder.iterdir() if path.is_file()][:4]:
            for number in range(100):
                (folder / f"{number}_{file.name}").hardlink_to(file)
    opened: list[str] = []
    real = io.open

    def counting(file: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(str(file))
        return real(file, *arguments, **options)

    monkeypatch.setattr(io, "open", counting)
    for layout in layouts.LAYOUTS:
        layout.detect(copy)
    assert len(opened) < 60


@pytest.mark.parametrize("name", MINIATURES)
def test_a_layout_yields_the_exact_masks(made: Made, name: str) -> None:
    root, expected = made(name)
    data = open_dataset(root, draw_val=False)
    check(data, expected, name=lambda sample: sample.image.stem)
    uncached = open_dataset(root, draw_val=False, cache_bytes=0)
    check(uncached, expected, name=lambda sample: sample.image.stem)


@pytest.mark.parametrize("name", MINIATURES)
def test_converting_to_folders_preserves_images_and_masks(
    made: Made, name: str, tmp_path: Path
) -> None:
    root, expected = made(name)
    target = tmp_path / "plain"
    source = convert_data(root, target)
    assert sorted(path.name for path in target.iterdir()) == ["classes.toml", "images", "masks"]
    data = open_dataset(target, draw_val=False)
    assert data.layout == "folders"
    check(data, expected, name=lambda sample: sample.image.stem)
    assert data.classes == source.classes.indexed()
    for split, samples in source.splits.items():
        copies = {sample.image.name: sample.image for sample in data.splits[split]}
        for sample in samples:
            assert copies[sample.image.name].read_bytes() == sample.image.read_bytes()
    for path in (target / "masks").rglob("*.png"):
        with Image.open(path) as image:
            assert image.mode == "P"


@pytest.mark.parametrize("name", MINIATURES)
def test_a_layout_trains_one_epoch(made: Made, name: str, tmp_path: Path) -> None:
    root, expected = made(name)
    settings = {**TINY, "epochs": 1, "batch_size": 3, "data.workers": 0}
    run = train(root, tmp_path / "run", load_recipe(None, settings))
    assert list(run.data.classes.names) == expected.names
    assert np.isfinite(run.history[0]["loss"])


def test_every_layout_has_a_miniature(made: Made) -> None:
    written = {made(name)[1].layout for name in MINIATURES}
    modules = {layout.__name__.split(".")[-1].replace("_", "-") for layout in layouts.LAYOUTS}
    assert written == modules


# VOC: palette masks and RGB masks.


def test_a_palette_mask_and_its_rgb_copy_give_the_same_indices(made: Made, tmp_path: Path) -> None:
    root, expected = made("voc")
    copy = tmp_path / "rgb"
    shutil.copytree(root, copy)
    for path in (copy / "SegmentationClass").iterdir():
        with Image.open(path) as image:
            image.convert("RGB").save(path)
    check(open_dataset(copy, draw_val=False), expected, name=lambda sample: sample.image.stem)
    assert any((mask == IGNORE).any() for mask in expected.masks["train"].values())


# YOLO: image paths in data.yaml.


def yolo_train_images(root: Path, text: str) -> list[str]:
    """Write `text` and the class names to data.yaml; return the stems of the train images."""
    (root / "data.yaml").write_text(f"{text}names: [tree, car, road]\n")
    return sorted(sample.image.stem for sample in layouts.read(root).splits["train"])


@pytest.mark.parametrize(
    "text",
    [
        "path: {root}\ntrain: images/train\nval: images/val\n",
        "path: .\ntrain: images/train/\nval: [images/val]\n",
        "train: ../images/train\nval: ../images/val\ntest: ../images/test\n",  # Roboflow
        "train: {root}/images/train\nval: {root}/images/val\n",
        "path: /content/elsewhere\ntrain: images/train\nval: images/val\n",
        "path: /content/elsewhere\ntrain: /content/a\nval: /content/b\n",
        "train: {root}/train.txt\nval: images/val\n",
        "path: ..\ntrain: {name}/images/train\nvalidation: {name}/images/val\n",
    ],
)
def test_yolo_paths_follow_the_rules_of_ultralytics(text: str, made: Made, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(made("yolo")[0], root)
    images = sorted((root / "images/train").iterdir())
    (root / "train.txt").write_text("".join(f"{image}\n" for image in images))
    expected = [image.stem for image in images]
    assert yolo_train_images(root, text.format(root=root, name=root.name)) == expected


def test_a_yolo_list_file_selects_images(made: Made, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(made("yolo")[0], root)
    (root / "train.txt").write_text("./images/train/photo_1.jpg\n")
    assert yolo_train_images(root, "train: train.txt\nval: images/val\n") == ["photo_1"]
    (root / "train.txt").write_text("./images/train/photo_1.jpg\n./images/train/gone.jpg\n")
    with pytest.raises(InputError, match=r"train\.txt: line 2: .*gone\.jpg does not exist"):
        yolo_train_images(root, "train: train.txt\nval: images/val\n")
    with pytest.raises(InputError, match=r"data\.yaml: val: images/other does not exist in"):
        yolo_train_images(root, "train: images/train\nval: images/other\n")
    with pytest.raises(InputError, match=r"data\.yaml: train: \['x'\] is not a path"):
        yolo_train_images(root, "train: [[x]]\nval: images/val\n")


# Shapes of Label Studio contain the pixels whose centers are inside.


def test_an_ellipse_covers_the_pixels_whose_centers_are_inside() -> None:
    ellipse = Ellipse(1, (0.5, 0.5), (0.25, 0.5), degrees=30)
    height, width = 20, 40
    expected = np.zeros((height, width), dtype=bool)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5 - 20, row + 0.5 - 10
            turn = math.radians(-30)  # rotate back to the ellipse's axes
            along = x * math.cos(turn) - y * math.sin(turn)
            across = x * math.sin(turn) + y * math.cos(turn)
            expected[row, column] = (along / 10) ** 2 + (across / 10) ** 2 <= 1
    np.testing.assert_array_equal(ellipse.cover((height, width)), expected)
    flat = Ellipse(1, (0.5, 0.5), (0.5, 0.1), degrees=90).cover((40, 40))
    assert flat.sum(axis=0).max() == 40  # rotated by 90 degrees: the long axis is vertical
    assert flat.sum(axis=1).max() == 8


def test_a_rectangle_rotates_clockwise_around_its_upper_left_corner() -> None:
    plain = Rectangle(1, (0.25, 0.5), (0.5, 0.25)).cover((20, 40))
    expected = np.zeros((20, 40), dtype=bool)
    expected[10:15, 10:30] = True
    np.testing.assert_array_equal(plain, expected)
    rotated = Rectangle(1, (0.5, 0.25), (0.25, 0.25), degrees=90).cover((20, 40))
    expected[:] = False
    expected[5:15, 15:20] = True  # 10 wide and 5 high: now 5 wide, to the left, and 10 high
    np.testing.assert_array_equal(rotated, expected)


def test_label_studio_ellipses_are_in_percent(made: Made, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(made("label studio")[0], root)
    path = root / "project-1-at-2026.json"
    tasks = json.loads(path.read_text())
    value = {"x": 50, "y": 25, "radiusX": 25, "radiusY": 12.5, "rotation": 0}
    result = {"type": "ellipselabels", "value": {**value, "ellipselabels": ["tree"]}}
    tasks[0]["annotations"][1]["result"] = [result]
    path.write_text(json.dumps(tasks))
    data = open_dataset(root, draw_val=False)
    sample = next(s for s in data.splits["all"] if s.image.stem == "photo_0")
    mask = data.read(sample)[1]
    tree = data.classes.names.index("tree")
    rows, columns = np.nonzero(mask == tree)
    height, width = mask.shape
    center = ((columns + 0.5).mean() / width, (rows + 0.5).mean() / height)
    assert center == pytest.approx((0.5, 0.25))
    area = math.pi * 0.25 * width * 0.125 * height
    assert (mask == tree).sum() == pytest.approx(area, rel=0.03)
    assert any("rectangles read as regions" in note for note in data.notes)
