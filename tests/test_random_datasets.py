"""Random datasets in the layouts of annotation tools: the masks are right, or there is an error.

Each image has its number in its pixels, so that a mask of another image is noticed whatever the
files are called. Names have spaces, dots, commas and both Unicode forms; there are hidden files,
images that no annotation describes, and second files of the same name.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.data.convert_dataset import convert_data
from pixelwise.data.dataset import open_dataset
from pixelwise.errors import InputError

WORDS = ["a", "b 1", "x.1", "é", "p,q", "001", "0001", "Ä b", "猫", "images", "train", "A"]
CLASSES = ["cat", "dog"]
Box = tuple[int, int, int, int, int]


@dataclass
class Item:
    """An image with its boxes: class 1 or 2, left, top, right, bottom."""

    number: int
    name: str
    size: tuple[int, int]
    boxes: list[Box]
    file: Path = field(default_factory=Path)

    @property
    def mask(self) -> np.ndarray[Any, Any]:
        mask = np.zeros(self.size, np.uint8)
        for value, left, top, right, bottom in self.boxes:
            mask[top:bottom, left:right] = value
        return mask


class Maker:
    """Writes one random dataset."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.rng = root, np.random.default_rng(seed)
        items = [self.item(number) for number in range(int(self.rng.integers(2, 6)))]
        self.items = [*{item.name: item for item in items}.values()]
        self.decoys: set[int] = set()

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def item(self, number: int) -> Item:
        words = [WORDS[i] for i in self.rng.integers(0, len(WORDS), int(self.rng.integers(1, 3)))]
        folder = f"{WORDS[int(self.rng.integers(0, 4))]}/" if self.chance(0.4) else ""
        name = folder + (f"00{number % 2}" if self.chance(0.3) else f"{' '.join(words)}{number}")
        height, width = (int(x) for x in self.rng.integers(16, 40, 2))
        boxes: list[Box] = []
        if not self.chance(0.15):
            boxes.append((1, 1, 1, 7, int(self.rng.integers(3, height))))
            boxes.append((2, 8, 2, int(self.rng.integers(10, width)), 9))
        return Item(number, name, (height, width), boxes)

    def image(self, path: Path, number: int, size: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
            pixels[0, 0] = number, 77, 78
            Image.fromarray(pixels).save(path)

    def images(self, folder: str) -> None:
        """Write the images, of which some get names in the other Unicode form, and decoys."""
        for item in self.items:
            form = "NFD" if self.chance(0.3) else "NFC"
            suffix = [".png", ".PNG", ".bmp"][int(self.rng.integers(0, 3))]
            item.file = self.root / folder / (unicodedata.normalize(form, item.name) + suffix)
            self.image(item.file, item.number, item.size)
            choice = self.rng.random()
            if choice < 0.1:
                self.decoy(item.file.with_suffix(".tif"), item)
            elif choice < 0.25:
                self.decoy(item.file.parent / "again" / item.file.name, item)
            elif choice < 0.3:
                item.file.unlink()  # its annotation must not become that of another image
            if self.chance(0.2):
                self.decoy(item.file.parent / f"more {item.number}.png", item)
            if self.chance(0.2):
                (item.file.parent / f"._{item.file.name}").write_bytes(b"\0\5\26\7")
                self.image(item.file.parent / ".thumbnails/t.png", 250, (8, 8))

    def decoy(self, path: Path, item: Item) -> None:
        number = 100 + len(self.decoys)
        self.decoys.add(number)
        self.image(path, number, item.size)

    def mask_files(self, folder: str, colors: Any = None) -> None:
        for item in self.items:
            if item.boxes or self.chance(0.5):
                path = self.root / folder / f"{item.name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(item.mask if colors is None else colors[item.mask]).save(path)

    def reference(self, item: Item) -> str:
        """The name of an image as this or another machine writes it."""
        name = f"{item.name}{item.file.suffix}"
        forms = [
            name,
            Path(name).name,
            name.replace("/", "\\"),
            f"C:\\set\\{name}",
            f"/home/me/{name}",
        ]
        return forms[int(self.rng.integers(0, len(forms)))]


def coco(maker: Maker) -> None:
    maker.images(["images", "data", "JPEGImages", "x"][int(maker.rng.integers(0, 4))])
    images, annotations = [], []
    for item in maker.items:
        height, width = item.size
        image = {"id": item.number, "file_name": maker.reference(item)}
        images.append({**image, "height": height, "width": width})
        for value, left, top, right, bottom in item.boxes:
            ring = [left, top, right, top, right, bottom, left, bottom]
            entry = {"id": len(annotations), "image_id": item.number, "category_id": value}
            annotations.append({**entry, "segmentation": [ring]})
    categories = [{"id": value, "name": name} for value, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (maker.root / "annotations.json").write_text(json.dumps(content))


def labelme(maker: Maker) -> None:
    maker.images("")
    (maker.root / "labels.txt").write_text("\n".join(CLASSES))
    for item in maker.items:
        shapes = [
            {"label": CLASSES[v - 1], "shape_type": "rectangle", "points": [[a, b], [c, d]]}
            for v, a, b, c, d in item.boxes
        ]
        path = item.file.parent / f"{Path(item.name).name}.json"
        reference = maker.reference(item).replace("\\", "/").rpartition("/")[2]
        path.write_text(json.dumps({"imagePath": reference, "shapes": shapes}))


def label_studio(maker: Maker) -> None:
    maker.images("images")
    tasks = []
    for item in maker.items:
        height, width = item.size
        results = []
        for value, left, top, right, bottom in item.boxes:
            box = {"x": left / width, "y": top / height}
            box |= {"width": (right - left) / width, "height": (bottom - top) / height}
            area = {key: 100 * number for key, number in box.items()}
            labels = {"rectanglelabels": [CLASSES[value - 1]]}
            results.append({"type": "rectanglelabels", "value": {**area, **labels}})
        name = f"{item.name}{item.file.suffix}"
        upload = f"/data/upload/1/0a1b2c3{item.number}-{Path(name).name}"
        reference = upload if maker.chance(0.5) else f"/data/local-files/?d=set/{name}"
        tasks.append({"id": item.number, "annotations": [{"result": results}]})
        tasks[-1]["data"] = {"image": reference}
    (maker.root / "export.json").write_text(json.dumps(tasks))


def yolo(maker: Maker) -> None:
    maker.images("images")
    for item in maker.items:
        height, width = item.size
        lines = []
        for value, left, top, right, bottom in item.boxes:
            corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
            text = " ".join(f"{x / width:.17g} {y / height:.17g}" for x, y in corners)
            lines.append(f"{value - 1} {text}")
        name = Path(item.name).name  # flat labels of nested images, if no other image has the name
        if name in {other.name for other in maker.items} or not maker.chance(0.1):
            name = item.name
        suffix = ".TXT" if maker.chance(0.2) else ".txt"
        path = maker.root / "labels" / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if lines or maker.chance(0.5):
            path.write_text("\n".join(lines))
    paths = "train: images\n" if maker.chance(0.5) else ""
    if maker.chance(0.3):
        paths = "train: train.txt\n"
        listed = "\n".join(f"./images/{item.name}{item.file.suffix}" for item in maker.items)
        (maker.root / "train.txt").write_text(listed)
    (maker.root / "data.yaml").write_text(f"{paths}names: [cat, dog]\n")


def voc(maker: Maker, *, colors: Any = None) -> None:
    maker.images("JPEGImages")
    maker.mask_files("SegmentationClass", colors)
    lists = maker.root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    names = [maker.reference(x) if maker.chance(0.3) else x.name for x in maker.items]
    (lists / "default.txt").write_text("\n".join(names))
    if colors is None:
        (maker.root / "class_names.txt").write_text("background\ncat\ndog\n")


def cvat(maker: Maker) -> None:
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    voc(maker, colors=colors)
    (maker.root / "labelmap.txt").write_text("background:0,0,0::\ncat:128,0,0::\ndog:0,128,0::\n")


def pair_lists(maker: Maker) -> None:
    maker.images("images")
    maker.mask_files("truth")
    lines = [f"images/{x.name}{x.file.suffix}\ttruth/{x.name}.png" for x in maker.items]
    (maker.root / "train.txt").write_text("\n".join(lines))


def folders(maker: Maker) -> None:
    maker.images("images")
    maker.mask_files("masks")


def class_masks(maker: Maker) -> None:
    maker.images("images")
    for item in maker.items:
        for value, name in enumerate(CLASSES, start=1):
            path = maker.root / "masks" / name / f"{item.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(((item.mask == value) * 255).astype(np.uint8)).save(path)


WRITERS: list[Callable[[Maker], None]] = [
    coco,
    labelme,
    label_studio,
    yolo,
    voc,
    cvat,
    pair_lists,
    folders,
    class_masks,
]


def check_dataset(root: Path, seed: int) -> bool:
    """Write a dataset and read it. Return whether it was read; a wrong mask is an error."""
    maker = Maker(root, seed)
    WRITERS[seed % len(WRITERS)](maker)
    truth = {item.number: item.mask for item in maker.items}
    try:
        data = open_dataset(root, draw_val=False)
        convert_data(root, root.parent / "converted", overwrite=True)
    except InputError:
        return False
    for found in (data, open_dataset(root.parent / "converted", draw_val=False)):
        values = found.classes.values
        for sample in (sample for samples in found.splits.values() for sample in samples):
            pixels, mask = found.read(sample)
            number = int(pixels[0, 0, 0])
            assert tuple(pixels[0, 0, 1:]) == (77, 78), (seed, sample)
            assert number < 250, f"{seed}: a hidden file was read: {sample}"
            stored = np.array(values)[mask]
            expected = truth[number] if number in truth else np.zeros_like(stored)
            assert number in truth or WRITERS[seed % len(WRITERS)] is yolo, (seed, sample)
            np.testing.assert_array_equal(stored, expected, err_msg=f"{seed}: {sample}")
    return True


def run(tmp_path: Path, seeds: range) -> int:
    read = 0
    for seed in seeds:
        root = tmp_path / str(seed) / "data"
        root.mkdir(parents=True)
        read += check_dataset(root, seed)
    return read


def test_random_datasets_are_right_or_refused(tmp_path: Path) -> None:
    assert run(tmp_path, range(72)) > 20


@pytest.mark.slow
def test_two_thousand_random_datasets_are_right_or_refused(tmp_path: Path) -> None:
    assert run(tmp_path, range(2000)) > 500
