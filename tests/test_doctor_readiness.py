"""The doctor does not call a dataset ready whose training would be meaningless."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.dataset import open_dataset
from pixelwise.doctor import Diagnosis, Finding, examine
from pixelwise.errors import InputError

HEIGHT, WIDTH = 96, 128
TABLE = '[[class]]\nname = "background"\n[[class]]\nname = "cat"\n[[class]]\nname = "dog"\n'


def boxes(number: int) -> list[tuple[str, int, int, int, int]]:
    return [
        ("cat", 5 + 3 * number, 5 + number, 40 + 3 * number, 45 + number),
        ("dog", 45, 60 - 2 * number, 90, 90 - 2 * number),
    ]


def truth(number: int) -> Any:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for value, (_, left, top, right, bottom) in enumerate(boxes(number), start=1):
        mask[top:bottom, left:right] = value
    return mask


def photo(number: int) -> Any:
    """A textured image in which the objects of `truth` are brighter."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(40, 120, (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 0).repeat(8, 1)
    noise = rng.integers(0, 20, (HEIGHT, WIDTH, 3))
    return (blocks + noise + (truth(number)[..., None] > 0) * 90).clip(0, 255).astype(np.uint8)


def write(
    root: Path,
    mask_of: Callable[[str, Any], Any],
    table: str = "",
    splits: tuple[str, ...] = ("train", "val", "test"),
) -> None:
    for number in range(12):
        split = splits[number % len(splits)]
        for kind, pixels in (("images", photo(number)), ("masks", mask_of(split, truth(number)))):
            path = root / kind / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)
    if table:
        (root / "classes.toml").write_text(table)


def findings(diagnosis: Diagnosis, kind: str) -> list[Finding]:
    return [finding for finding in diagnosis.findings if finding.kind.id == kind]


@pytest.mark.parametrize("table", ["", TABLE])
@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("value", [0, 2])
def test_a_split_of_one_class_beside_complete_ones(
    tmp_path: Path, split: str, table: str, value: int
) -> None:
    write(tmp_path, lambda name, mask: mask if name != split else mask * 0 + value, table)
    diagnosis = examine(tmp_path)
    assert not diagnosis.verdict.startswith("Ready")
    (finding,) = findings(diagnosis, "one-class-split")
    name = (["background", "cat", "dog"] if table else ["class_0", "class_1", "class_2"])[value]
    assert finding.message == f"{split} holds only {name}, but the dataset has 3 classes"
    assert finding.remedy == f"move images with other classes into {split}"


def test_complete_splits_are_ready(tmp_path: Path) -> None:
    write(tmp_path, lambda _, mask: mask, TABLE)
    diagnosis = examine(tmp_path)
    assert diagnosis.verdict.startswith("Ready")
    assert not findings(diagnosis, "one-class-split")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_a_labeled_pixel(tmp_path: Path, split: str) -> None:
    table = f"ignore = 255\n{TABLE}"
    write(tmp_path, lambda name, mask: mask if name != split else mask * 0 + 255, table)
    diagnosis = examine(tmp_path)
    assert not diagnosis.verdict.startswith("Ready")
    assert diagnosis.trains is (split != "train")
    (finding,) = findings(diagnosis, "unlabeled-split")
    assert f"all pixels of {split} are ignored" in finding.message
    assert "`ignore`" in finding.remedy


@pytest.mark.parametrize("classes", [2, 3])
def test_an_object_that_is_lost_because_255_is_ignored(tmp_path: Path, classes: int) -> None:
    """Masks of 0 and 255 under a table that ignores 255."""
    table = "ignore = 255\n" + "".join(f'[[class]]\nname = "c{n}"\n' for n in range(classes))
    values = np.array([0, 255 if classes == 2 else 1, 255], dtype=np.uint8)
    write(tmp_path, lambda _, mask: values[mask], table)
    diagnosis = examine(tmp_path)
    assert not diagnosis.verdict.startswith("Ready")
    kind = "one-class-everywhere" if classes == 2 else "absent-from-train"
    (finding,) = findings(diagnosis, kind)
    assert "remove `ignore` from" in finding.remedy
    assert "`value = 255`" in finding.remedy


def test_the_remedy_of_an_absent_class_does_not_mention_ignore_without_cause(
    tmp_path: Path,
) -> None:
    write(tmp_path, lambda _, mask: np.minimum(mask, 1), f"ignore = 255\n{TABLE}")
    (finding,) = findings(examine(tmp_path), "absent-from-train")
    assert "ignore" not in finding.remedy


# Polygons in the frame of an image without its EXIF orientation.

RAW_TO_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    6: lambda a: np.rot90(a, -1),
    8: lambda a: np.rot90(a),
}


def corners(box: tuple[str, int, int, int, int]) -> list[list[float]]:
    _, left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def write_coco(root: Path, size: tuple[int, int] | None) -> None:
    images, annotations = [], []
    for number in range(6):
        image: dict[str, Any] = {"id": number, "file_name": f"p{number}.jpg"}
        if size is not None:
            image |= {"width": size[0], "height": size[1]}
        images.append(image)
        for value, box in enumerate(boxes(number), start=1):
            ring = [c for corner in corners(box) for c in corner]
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": value,
                    "segmentation": [ring],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content))


def write_labelme(root: Path, size: tuple[int, int] | None) -> None:
    for number in range(6):
        shapes = [
            {"label": box[0], "points": corners(box), "shape_type": "polygon"}
            for box in boxes(number)
        ]
        content: dict[str, Any] = {"shapes": shapes, "imagePath": f"images/p{number}.jpg"}
        if size is not None:
            content |= {"imageWidth": size[0], "imageHeight": size[1]}
        (root / f"p{number}.json").write_text(json.dumps(content | {"imagePath": f"p{number}.jpg"}))
        (root / f"images/p{number}.jpg").rename(root / f"p{number}.jpg")
    (root / "images").rmdir()


def write_yolo(root: Path, size: tuple[int, int] | None) -> None:
    (root / "labels").mkdir()
    for number in range(6):
        lines = [
            f"{value} " + " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners(box))
            for value, box in enumerate(boxes(number))
        ]
        (root / f"labels/p{number}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")


def write_label_studio(root: Path, size: tuple[int, int] | None) -> None:
    width, height = size or (WIDTH, HEIGHT)
    tasks = []
    for number in range(6):
        result = [
            {
                "type": "polygonlabels",
                "original_width": width,
                "original_height": height,
                "value": {
                    "points": [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in corners(box)],
                    "polygonlabels": [box[0]],
                },
            }
            for box in boxes(number)
        ]
        image = {"image": f"images/p{number}.jpg"}
        tasks.append({"id": number, "data": image, "annotations": [{"result": result}]})
    (root / "export.json").write_text(json.dumps(tasks))


LAYOUTS = {
    "coco": write_coco,
    "labelme": write_labelme,
    "yolo": write_yolo,
    "label studio": write_label_studio,
}
RECORDED = ["coco", "labelme", "label studio"]
UNRECORDED = ["coco", "labelme", "yolo"]


def write_images(root: Path, orientation: int) -> None:
    (root / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number in range(6):
        Image.fromarray(photo(number)).save(root / f"images/p{number}.jpg", quality=95, exif=exif)


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("orientation", [6, 8])
def test_a_recorded_size_that_exif_swaps_is_an_error(
    tmp_path: Path, name: str, orientation: int
) -> None:
    write_images(tmp_path, orientation)
    LAYOUTS[name](tmp_path, (WIDTH, HEIGHT))
    with pytest.raises(InputError) as raised:
        open_dataset(tmp_path)
    assert all("EXIF orientation" in line for line in raised.value.problems)
    assert not examine(tmp_path).trains


@pytest.mark.parametrize("name", UNRECORDED)
@pytest.mark.parametrize("orientation", RAW_TO_UPRIGHT)
def test_polygons_drawn_without_the_exif_rotation_are_found(
    tmp_path: Path, name: str, orientation: int
) -> None:
    write_images(tmp_path, orientation)
    LAYOUTS[name](tmp_path, None)
    diagnosis = examine(tmp_path)
    found = findings(diagnosis, "exif-unturned-mask")
    assert len(found) == 6
    assert not diagnosis.verdict.startswith("Ready")


@pytest.mark.parametrize("name", ["coco", "labelme", "label studio"])
@pytest.mark.parametrize("orientation", [2, 3])
def test_recorded_sizes_do_not_hide_a_mirrored_or_upside_down_frame(
    tmp_path: Path, name: str, orientation: int
) -> None:
    write_images(tmp_path, orientation)
    LAYOUTS[name](tmp_path, (WIDTH, HEIGHT))
    assert len(findings(examine(tmp_path), "exif-unturned-mask")) == 6


@pytest.mark.parametrize("name", LAYOUTS)
def test_polygons_on_images_without_exif_are_not_reported(tmp_path: Path, name: str) -> None:
    write_images(tmp_path, 1)
    LAYOUTS[name](tmp_path, (WIDTH, HEIGHT))
    assert not findings(examine(tmp_path), "exif-unturned-mask")
