"""Tiny datasets of every layout, written from the public format descriptions, not with our readers.

Each function fills a folder and returns the masks that a reader must find in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 56
SPLITS = {"train": 3, "val": 2}
Mask = np.ndarray[Any, np.dtype[np.uint8]]

# Three objects on a background. They are listed from the largest to the smallest, so that the rules
# "smaller objects on top" and "later objects on top" give the same mask.
ROAD, TREE, CAR = "road", "tree", "car"
VOC_COLORS = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]  # values 0..3


def polygons(number: int) -> list[tuple[str, list[tuple[float, float]]]]:
    """Name and corners (x, y) of the objects in image `number`."""
    shift = 2.5 * number
    return [
        (ROAD, [(0, 25), (56, 25), (56, 40), (0, 40)]),
        (TREE, [(34 + shift, 3), (44 + shift, 30), (26 + shift, 28.2)]),
        (CAR, [(4 + shift, 20), (20 + shift, 20), (20 + shift, 31), (4 + shift, 31)]),
    ]


def inside(x: float, y: float, ring: list[tuple[float, float]]) -> bool:
    """Whether a point is inside by the even-odd rule, from the crossings of a ray to the left."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if (y0 <= y) != (y1 <= y):
            crossings += x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x
    return crossings % 2 == 1


def covered(ring: list[tuple[float, float]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The pixels (H, W) whose centers are inside a polygon."""
    return _covered(tuple(ring))


@cache
def _covered(corners: tuple[tuple[float, float], ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    ring = [*corners]
    return np.array([[inside(c + 0.5, r + 0.5, ring) for c in range(WIDTH)] for r in range(HEIGHT)])


def polygon_mask(number: int, values: dict[str, int]) -> Mask:
    """The mask of image `number`, with these values for the objects."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for name, ring in polygons(number):
        mask[covered(ring)] = values[name]
    return mask


@dataclass
class Expected:
    """What a reader must find: masks of class indices (255 ignored) by split and image stem."""

    layout: str
    names: list[str]
    colors: list[tuple[int, int, int]] | None = None
    ignored: bool = False
    masks: dict[str, dict[str, Mask]] = field(default_factory=dict)

    def add(self, split: str, stem: str, mask: Mask) -> None:
        self.masks.setdefault(split, {})[stem] = mask


def write_image(path: Path, number: int) -> None:
    """Write a random RGB image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)


def write_mask(path: Path, mask: Any, palette: list[tuple[int, int, int]] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(mask))
    if palette is not None:
        image.putpalette([channel for color in palette for channel in color])
    image.save(path)


def samples() -> list[tuple[str, int, str]]:
    """Split, number and stem of each image."""
    entries, number = [], 0
    for split, count in SPLITS.items():
        for _ in range(count):
            entries.append((split, number, f"photo_{number}"))
            number += 1
    return entries


def blobs(number: int, count: int, *, void: bool = False) -> Mask:
    """Random class indices in blocks of 4x4, each class at least once; `void` adds 255."""
    rng = np.random.default_rng(100 + number)
    blocks = rng.integers(0, count, (HEIGHT // 4, WIDTH // 4), dtype=np.uint8)
    blocks.reshape(-1)[:count] = range(count)
    if void:
        blocks[-1] = 255
    return blocks.repeat(4, axis=0).repeat(4, axis=1)


def plain(root: Path) -> Expected:
    """images/train/ and masks/train/ of class indices, without a class table."""
    expected = Expected("folders", ["class_0", "class_1", "class_2"])
    for split, number, stem in samples():
        mask = blobs(number, 3)
        write_image(root / "images" / split / f"{stem}.png", number)
        write_mask(root / "masks" / split / f"{stem}.png", mask)
        expected.add(split, stem, mask)
    return expected


def splits_above(root: Path) -> Expected:
    """train/images/ and train/labels/; masks of 0 and 255."""
    expected = Expected("folders", ["background", "foreground"])
    for split, number, stem in samples():
        mask = blobs(number, 2)
        write_image(root / split / "images" / f"{stem}.jpg", number)
        write_mask(root / split / "labels" / f"{stem}.png", mask * np.uint8(255))
        expected.add(split, stem, mask)
    return expected


def suffixes(root: Path) -> Expected:
    """NAME.jpg and NAME_mask.png in one folder."""
    expected = Expected("folders", ["class_0", "class_1"])
    for _, number, stem in samples():
        mask = blobs(number, 2)
        write_image(root / f"{stem}.jpg", number)
        write_mask(root / f"{stem}_mask.png", mask)
        expected.add("all", stem, mask)
    return expected


def suffixes_across(root: Path) -> Expected:
    """JPEGImages/NAME.jpg and SegmentationClass/NAME_gt.png; RGB masks without a class table."""
    colors = [(0, 0, 0), (10, 20, 200), (250, 3, 3)]
    expected = Expected("folders", ["color_1", "color_2", "color_3"], colors)
    for _, number, stem in samples():
        mask = blobs(number, 3)
        write_image(root / "JPEGImages" / f"{stem}.jpg", number)
        write_mask(root / "SegmentationClass" / f"{stem}_gt.png", np.array(colors, np.uint8)[mask])
        expected.add("all", stem, mask)
    return expected


def pair_lists(root: Path) -> Expected:
    """train.txt and val.txt with an image and a mask per line."""
    expected = Expected("folders", ["class_0", "class_1", "class_2"])
    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    for split, number, stem in samples():
        mask = blobs(number, 3)
        write_image(root / "images" / f"{stem}.jpg", number)
        write_mask(root / "truth" / f"{stem}.png", mask)
        separator = {"train": "\t", "val": " "}[split]
        lines[split].append(f"images/{stem}.jpg{separator}truth/{stem}.png")
        expected.add(split, stem, mask)
    for split, text in lines.items():
        (root / f"{split}.txt").write_text("\n".join(text) + "\n")
    return expected


def one_hot(root: Path) -> Expected:
    """images/ and masks/ of .npy arrays with one channel per class, last or first."""
    expected = Expected("folders", ["class_0", "class_1", "class_2"])
    (root / "masks").mkdir(parents=True)
    for _, number, stem in samples():
        mask = blobs(number, 3)
        write_image(root / "images" / f"{stem}.png", number)
        channels = np.eye(3, dtype=np.uint8)[mask]
        np.save(root / "masks" / f"{stem}.npy", channels if number else channels.transpose(2, 0, 1))
        expected.add("all", stem, mask)
    return expected


def class_folders(root: Path) -> Expected:
    """masks/CLASS/NAME.png, black and white; uncovered pixels are background."""
    expected = Expected("class-masks", ["background", "car", "road"])
    for split, number, stem in samples():
        mask = blobs(number, 3)
        write_image(root / "images" / split / f"{stem}.png", number)
        for value, name in enumerate(expected.names):
            if value:
                write_mask(
                    root / "masks" / split / name / f"{stem}.png", (mask == value) * np.uint8(255)
                )
        expected.add(split, stem, mask)
    return expected


def class_endings(root: Path) -> Expected:
    """masks/NAME_CLASS.png with a background class; uncovered pixels are ignored."""
    expected = Expected("class-masks", ["background", "my_car", "road"], ignored=True)
    for _, number, stem in samples():
        mask = blobs(number, 3, void=True)
        write_image(root / "images" / f"{stem}.png", number)
        for value, name in enumerate(expected.names):
            write_mask(root / "masks" / f"{stem}_{name}.png", (mask == value).astype(np.uint8))
        expected.add("all", stem, mask)
    return expected


VOC = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]

VOC_PALETTE = (
    "000000 800000 008000 808000 000080 800080 008080 808080 400000 c00000 408000 "
    "c08000 400080 c00080 408080 c08080 004000 804000 00c000 80c000 004080"
)
"""The 21 colors of the development kit, in hexadecimal."""


def voc_colors() -> list[tuple[int, int, int]]:
    colors = [bytes.fromhex(text) for text in VOC_PALETTE.split()]
    return [(red, green, blue) for red, green, blue in colors]


def voc(root: Path) -> Expected:
    """VOC2012: palette PNG with void 255, split lists; the test split has no masks."""
    expected = Expected("voc", VOC, voc_colors(), ignored=True)
    palette = voc_colors() + [(0, 0, 0)] * 234 + [(224, 224, 192)]
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, number, stem in samples():
        mask = blobs(number, 21, void=True)
        write_image(root / "JPEGImages" / f"{stem}.jpg", number)
        write_mask(root / "SegmentationClass" / f"{stem}.png", mask, palette)
        write_mask(root / "SegmentationObject" / f"{stem}.png", mask)
        with (lists / f"{split}.txt").open("a") as stream:
            stream.write(f"{stem}\n")
        expected.add(split, stem, mask)
    write_image(root / "JPEGImages" / "unlabeled.jpg", 99)
    (lists / "test.txt").write_text("unlabeled\n")
    (lists / "trainval.txt").write_text("\n".join(stem for _, _, stem in samples()))
    return expected


def voc_aug(root: Path) -> Expected:
    """VOC2012 with SBD's masks as PNG, in VOCdevkit/."""
    year = root / "VOCdevkit" / "VOC2012"
    expected = voc(year)
    lists = year / "ImageSets" / "Segmentation"
    for split, number, stem in samples():
        write_mask(year / "SegmentationClassAug" / f"{stem}.png", expected.masks[split][stem])
        if number < 2:
            (year / "SegmentationClass" / f"{stem}.png").unlink()
    (lists / "train_aug.txt").write_text((lists / "train.txt").read_text())
    (lists / "train.txt").write_text("photo_2\n")
    return expected


def sbd(root: Path) -> Expected:
    """SBD as released: dataset/img/, dataset/cls/ with MATLAB structures, split lists."""
    from scipy.io import savemat

    expected = Expected("sbd", VOC, voc_colors(), ignored=True)
    (root / "dataset" / "cls").mkdir(parents=True)
    for split, number, stem in samples():
        mask = blobs(number, 21)
        write_image(root / "dataset" / "img" / f"{stem}.jpg", number)
        content = {"Boundaries": np.zeros((20, 1)), "Segmentation": mask}
        savemat(root / "dataset" / "cls" / f"{stem}.mat", {"GTcls": content})
        with (root / "dataset" / f"{split}.txt").open("a") as stream:
            stream.write(f"{stem}\n")
        expected.add(split, stem, mask)
    return expected


# (name, id) in the order of trainId, from the benchmark's table.
CITYSCAPES = [
    ("road", 7),
    ("sidewalk", 8),
    ("building", 11),
    ("wall", 12),
    ("fence", 13),
    ("pole", 17),
    ("traffic light", 19),
    ("traffic sign", 20),
    ("vegetation", 21),
    ("terrain", 22),
    ("sky", 23),
    ("person", 24),
    ("rider", 25),
    ("car", 26),
    ("truck", 27),
    ("bus", 28),
    ("train", 31),
    ("motorcycle", 32),
    ("bicycle", 33),
]


def cityscapes(root: Path, *, truth: str = "gtFine", train_ids: bool = False) -> Expected:
    expected = Expected("cityscapes", [name for name, _ in CITYSCAPES], ignored=True)
    ids = np.full(256, 0, dtype=np.uint8)
    ids[: len(CITYSCAPES)] = [value for _, value in CITYSCAPES]
    for split, number, _ in samples():
        city = "ulm" if number % 2 else "bonn"
        name = f"{city}_{number:06d}_000019"
        mask = blobs(number, 19, void=True)
        stored = mask if train_ids else ids[mask]
        if not train_ids:
            stored[-1, :8] = [0, 1, 4, 9, 15, 18, 29, 30]  # ids that are not evaluated
        kind = "labelTrainIds" if train_ids else "labelIds"
        write_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", number)
        write_mask(root / truth / split / city / f"{name}_{truth}_{kind}.png", stored)
        write_mask(root / truth / split / city / f"{name}_{truth}_color.png", stored)
        expected.add(split, f"{name}_leftImg8bit", mask)
    return expected


def ade20k(root: Path) -> Expected:
    names = [f"thing {value}" for value in range(1, 151)]
    expected = Expected("ade20k", names, ignored=True)
    folders = {"train": "training", "val": "validation"}
    for split, number, _ in samples():
        stem = f"ADE_{split}_{number:08d}"
        mask = blobs(number, 140, void=True)
        stored = np.where(mask == 255, 0, mask + 1).astype(np.uint8)
        write_image(root / "images" / folders[split] / f"{stem}.jpg", number)
        write_mask(root / "annotations" / folders[split] / f"{stem}.png", stored)
        expected.add(split, stem, mask)
    rows = [f"{v}\t0.1\t10\t2\t0\tthing {v}, another {v}" for v in range(1, 151)]
    table = ["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows]
    (root / "objectInfo150.txt").write_text("\n".join(table) + "\n")
    return expected


def camvid11(root: Path) -> Expected:
    names = "sky,building,pole,road,pavement,tree,sign symbol,fence,car,pedestrian,bicyclist"
    expected = Expected("camvid", names.split(","), ignored=True)
    for split, number, stem in samples():
        mask = blobs(number, 11, void=True)
        write_image(root / split / f"{stem}.png", number)
        write_mask(
            root / f"{split}annot" / f"{stem}.png", np.where(mask == 255, 11, mask).astype("u1")
        )
        with (root / f"{split}.txt").open("a") as stream:
            stream.write(f"/SegNet/CamVid/{split}/{stem}.png /SegNet/{split}annot/{stem}.png\n")
        expected.add(split, stem, mask)
    return expected


CAMVID32 = """64 128 64\tAnimal
192 0 128\tArchway
0 128 192\tBicyclist
128 64 128\tRoad
0 0 0\tVoid
64 192 0\tWall
"""


def camvid32(root: Path, *, repack: bool = False) -> Expected:
    """RGB masks NAME_L.png with a color table; as published, or as train/ and train_labels/."""
    rows = [line.split() for line in CAMVID32.splitlines()]
    named = {name: (int(r), int(g), int(b)) for r, g, b, name in rows}
    void = named.pop("Void")
    expected = Expected("camvid32", [*named], [*named.values()], ignored=True)
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(named)] = [*named.values()]
    table[255] = void
    for split, number, stem in samples():
        mask = blobs(number, len(named), void=True)
        images = root / split if repack else root / "701_StillsRaw_full"
        masks = root / f"{split}_labels" if repack else root / "LabeledApproved_full"
        write_image(images / f"{stem}.png", number)
        write_mask(masks / f"{stem}_L.png", table[mask])
        expected.add(split if repack else "all", stem, mask)
    if repack:
        lines = ["name, r, g, b", *(f"{name}, {r}, {g}, {b}" for r, g, b, name in rows)]
        (root / "class_dict.csv").write_text("\n".join(lines) + "\n")
    else:
        (root / "label_colors.txt").write_text(CAMVID32)
    return expected


def coco_counts(mask: Any) -> list[int]:
    """Uncompressed RLE: run lengths in column order, zeros first."""
    flat = mask.T.reshape(-1).tolist()
    counts, last = [0], False
    for value in flat:
        if value != last:
            counts.append(0)
            last = value
        counts[-1] += 1
    return counts


def coco_text(counts: list[int]) -> str:
    """COCO's compressed RLE: differences to the count before last, five bits per character."""
    text = ""
    for index, count in enumerate(counts):
        number = count - counts[index - 2] if index > 2 else count
        while True:
            code = number & 31
            number >>= 5
            done = number == (-1 if code & 16 else 0)
            text += chr(48 + (code if done else code | 32))
            if done:
                break
    return text


def coco(root: Path) -> Expected:
    """annotations/instances_SPLIT.json: polygons, RLE and compressed RLE; ids with gaps."""
    expected = Expected("coco", ["background", ROAD, CAR, TREE], VOC_COLORS)
    ids = {ROAD: 3, CAR: 7, TREE: 90}
    (root / "annotations").mkdir(parents=True)
    for split in SPLITS:
        content: dict[str, Any] = {
            "info": {},
            "images": [],
            "annotations": [],
            "categories": [{"id": value, "name": name} for name, value in ids.items()],
        }
        for image_split, number, stem in samples():
            if image_split != split:
                continue
            write_image(root / "images" / split / f"{stem}.jpg", number)
            content["images"].append(
                {"id": number, "file_name": f"{stem}.jpg", "height": HEIGHT, "width": WIDTH}
            )
            empty = number == 1
            # The smaller objects come first in the file but are on top.
            for index, (name, ring) in enumerate([] if empty else polygons(number)[::-1]):
                counts = coco_counts(covered(ring))
                stored: Any = [[coordinate for corner in ring for coordinate in corner]]
                if (number + index) % 3:
                    text = coco_text(counts)
                    stored = {
                        "size": [HEIGHT, WIDTH],
                        "counts": text if (number + index) % 3 == 1 else counts,
                    }
                content["annotations"].append(
                    {
                        "id": 10 * number + index,
                        "image_id": number,
                        "category_id": ids[name],
                        "segmentation": stored,
                        "iscrowd": int(isinstance(stored, dict)),
                        "bbox": [0, 0, 1, 1],
                    }
                )
            mask = polygon_mask(number, {ROAD: 1, CAR: 2, TREE: 3})
            expected.add(split, stem, np.zeros_like(mask) if empty else mask)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        (root / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))
    return expected


def coco_beside(root: Path) -> Expected:
    """_annotations.coco.json beside the images, as written by Roboflow."""
    source = root / "coco"
    expected = coco(source)
    for split, folder in (("train", "train"), ("val", "valid")):
        (source / "images" / split).rename(root / folder)
        (source / "annotations" / f"instances_{split}.json").rename(
            root / folder / "_annotations.coco.json"
        )
        (source / "annotations" / f"captions_{split}.json").unlink()
    for path in (source / "annotations", source / "images", source):
        path.rmdir()
    return expected


def coco_stuff(root: Path) -> Expected:
    names = ["person", "bicycle", "car"]
    expected = Expected("coco-stuff", names, ignored=True)
    for split, number, stem in samples():
        mask = blobs(number, 3, void=True)
        write_image(root / "images" / f"{split}2017" / f"{stem}.jpg", number)
        write_mask(root / "stuffthingmaps" / f"{split}2017" / f"{stem}.png", mask)
        expected.add(split, stem, mask)
    (root / "labels.txt").write_text("0: unlabeled\n1: person\n2: bicycle\n3: car\n")
    return expected


def labelme(root: Path) -> Expected:
    """NAME.json beside NAME.jpg, with a rectangle and a circle; __ignore__ is ignored."""
    expected = Expected("labelme", ["background", CAR, "pole", ROAD, TREE], ignored=True)
    for _, number, stem in samples():
        write_image(root / f"{stem}.jpg", number)
        mask = polygon_mask(number, {CAR: 1, ROAD: 3, TREE: 4})
        shapes = [
            {"label": name, "shape_type": "polygon", "points": [list(corner) for corner in ring]}
            for name, ring in polygons(number)
        ]
        shapes.append({"label": "pole", "shape_type": "rectangle", "points": [[8, 36], [2, 30]]})
        mask[30:36, 2:8] = 2
        shapes.append(
            {"label": "__ignore__", "shape_type": "circle", "points": [[50, 8], [50, 12]]}
        )
        for row in range(HEIGHT):
            for column in range(WIDTH):
                if (column + 0.5 - 50) ** 2 + (row + 0.5 - 8) ** 2 <= 16:
                    mask[row, column] = 255
        content = {
            "version": "5.4.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"..\\{stem}.jpg" if number == 0 else f"{stem}.jpg",
            "imageData": None,
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        (root / f"{stem}.json").write_text(json.dumps(content))
        expected.add("all", stem, mask)
    return expected


def geojson(root: Path) -> Expected:
    """NAME.geojson for each image; every second file has lost the members beside its features."""
    expected = Expected("geojson", ["background", CAR, TREE, "pole", ROAD])
    for _, number, stem in samples():
        write_image(root / "images" / f"{stem}.jpg", number)
        features = [
            {
                "type": "Feature",
                "properties": {"class": name, "confidence": 0.5},
                "geometry": {"type": "Polygon", "coordinates": [[*map(list, ring), list(ring[0])]]},
            }
            for name, ring in polygons(number)
        ]
        squares = [[[x, 30], [x, 36], [x + 6, 36], [x + 6, 30]] for x in (2, 12)]
        hole = [[4, 32], [4, 34], [6, 34], [6, 32]]
        pole = {"type": "MultiPolygon", "coordinates": [[squares[0], hole], [squares[1]]]}
        features.append({"type": "Feature", "properties": {"class": "pole"}, "geometry": pole})
        content: dict[str, Any] = {"type": "FeatureCollection", "features": features}
        if number % 2 == 0:
            content |= {"image": f"images/{stem}.jpg", "classes": [CAR, TREE]}
        (root / f"{stem}.geojson").write_text(json.dumps(content))
        mask = polygon_mask(number, {CAR: 1, ROAD: 4, TREE: 2})
        under = mask[32:34, 4:6].copy()
        mask[30:36, 2:8] = mask[30:36, 12:18] = 3
        mask[32:34, 4:6] = under
        expected.add("all", stem, mask)
    return expected


def cvat(root: Path, *, palette: bool = False) -> Expected:
    """labelmap.txt in an arbitrary order; the masks are RGB or have a palette."""
    colors = {"background": (0, 0, 0), "car": (250, 50, 83), "road": (52, 209, 183)}
    expected = Expected("cvat", [*colors], [*colors.values()])
    table = [*colors.values()]
    for split, number, stem in samples():
        mask = blobs(number, 3)
        write_image(root / "JPEGImages" / f"{stem}.jpg", number)
        path = root / "SegmentationClass" / f"{stem}.png"
        if palette:
            write_mask(path, (2 - mask).astype(np.uint8), table[::-1])
        else:
            write_mask(path, np.array(table, dtype=np.uint8)[mask])
        write_mask(root / "SegmentationObject" / f"{stem}.png", mask)
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        with (lists / f"{split.capitalize()}.txt").open("a") as stream:
            stream.write(f"{stem}\n")
        expected.add(split, stem, mask)
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in colors.items()]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines))
    return expected


def roboflow(root: Path) -> Expected:
    expected = Expected("roboflow", ["background", "leaf", "stem"])
    for split, number, stem in samples():
        folder = root / {"train": "train", "val": "valid"}[split]
        mask = blobs(number, 3)
        write_image(folder / f"{stem}.jpg", number)
        write_mask(folder / f"{stem}_mask.png", mask)
        (folder / "_classes.csv").write_text(
            "Pixel Value, Class\n0, background\n1, leaf\n2, stem\n"
        )
        expected.add(split, stem, mask)
    return expected


def yolo(root: Path) -> Expected:
    expected = Expected("yolo", ["background", TREE, CAR, ROAD], VOC_COLORS)
    for split, number, stem in samples():
        write_image(root / "images" / split / f"{stem}.jpg", number)
        labels = root / "labels" / split
        labels.mkdir(parents=True, exist_ok=True)
        mask = polygon_mask(number, {TREE: 1, CAR: 2, ROAD: 3})
        if number == 4:  # no label file: the image has no objects
            mask = np.zeros_like(mask)
        else:
            lines = []
            for name, ring in polygons(number)[::-1]:
                corners = " ".join(f"{x / WIDTH:.17g} {y / HEIGHT:.17g}" for x, y in ring)
                lines.append(f"{[TREE, CAR, ROAD].index(name)} {corners}")
            (labels / f"{stem}.txt").write_text("\n".join(lines) + "\n")
        expected.add(split, stem, mask)
    (root / "data.yaml").write_text(
        "path: ../datasets/x\ntrain: images/train\nval: images/val\nnames:\n  0: tree\n  1: car\n"
        "  2: road\n"
    )
    return expected


def yolo_lists(root: Path) -> Expected:
    """`path`, list files and several folders, as Ultralytics allows; labels beside the images."""
    expected = yolo(root)
    for split, images in (("train", root / "images/train"), ("val", root / "images/val")):
        for image in sorted(images.iterdir()):
            folder = root / "cameras" / f"{split}{int(image.stem[-1]) % 2}"
            for kind, file in (("images", image), ("labels", root / "labels" / split / image.name)):
                source = file.with_suffix(".txt") if kind == "labels" else file
                if source.is_file():
                    (folder / kind).mkdir(parents=True, exist_ok=True)
                    source.rename(folder / kind / source.name)
    listed = sorted((root / "cameras").glob("val*/images/*.jpg"))
    lines = [f"./{path.relative_to(root / 'cameras').as_posix()}\n" for path in listed]
    (root / "cameras" / "val.txt").write_text("".join(lines))
    for folder in ("images", "labels"):
        for path in sorted((root / folder).rglob("*"), reverse=True):
            path.rmdir()
        (root / folder).rmdir()
    (root / "data.yaml").write_text(
        "path: cameras\ntrain: [train0/images, train1]\nval: val.txt\nnames: [tree, car, road]\n"
    )
    return expected


def ultralytics(root: Path) -> Expected:
    expected = Expected("ultralytics", ["wood", "water"], ignored=True)
    for split, number, stem in samples():
        mask = blobs(number, 2, void=True)
        write_image(root / "images" / split / f"{stem}.png", number)
        write_mask(root / "masks" / split / f"{stem}.png", mask)
        expected.add(split, stem, mask)
    (root / "data.yaml").write_text(
        "train: images/train\nval: images/val\nmasks_dir: masks\nnames: [wood, water]\n"
    )
    return expected


@cache
def rle_pack(words: tuple[int, ...]) -> list[int]:
    """Label Studio's RLE: header bits, then repeated words or literal words."""
    bits = f"{len(words):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    at = 0
    while at < len(words):
        end = at
        while end < len(words) and words[end] == words[at]:
            end += 1
        end = min(end, at + 65536)
        repeated = end - at > 1
        if not repeated:
            while end < len(words) and words[end] != words[end - 1] and end - at < 16:
                end += 1
        length = end - at - 1
        kind = next(k for k, size in enumerate((3, 4, 8, 16)) if length < 1 << size)
        bits += f"{int(repeated)}{kind:02b}{length:0{(3, 4, 8, 16)[kind]}b}"
        bits += "".join(
            f"{word:08b}" for word in (words[at : at + 1] if repeated else words[at:end])
        )
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def label_studio(root: Path, *, png: bool = False) -> Expected:
    """The JSON export with brush masks, polygons and rectangles, or with brush masks as PNG."""
    expected = Expected("label-studio", ["background", CAR, ROAD, TREE], VOC_COLORS)
    tasks: list[dict[str, Any]] = []
    for _, number, stem in samples():
        write_image(root / "images" / f"{stem}.jpg", number)
        results = []
        for index, (name, ring) in enumerate(polygons(number)):
            pixels = covered(ring)
            if png:
                folder = root / "brush"
                file = f"task-{number}-annotation-7-by-me@example.org-tag-{name}-{index}.png"
                write_mask(folder / file, pixels.astype(np.uint8) * np.uint8(255))
                continue
            value: dict[str, Any] = {"format": "rle", "brushlabels": [name]}
            rgba = np.repeat(pixels.astype(np.uint8)[..., None] * 255, 4, axis=2)
            value["rle"] = rle_pack(tuple(rgba.reshape(-1).tolist()))
            if name == TREE:
                points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ring]
                value = {"points": points, "polygonlabels": [name]}
            if name == CAR and number % 2 == 0:  # then its corners are at whole pixels
                (left, top), _, (right, bottom), _ = ring
                value = {"x": 100 * left / WIDTH, "y": 100 * top / HEIGHT, "rotation": 0}
                value |= {
                    "width": 100 * (right - left) / WIDTH,
                    "height": 100 * (bottom - top) / HEIGHT,
                    "rectanglelabels": [name],
                }
            results.append(
                {
                    "type": next(key for key in value if key.endswith("labels")),
                    "value": value,
                    "original_width": WIDTH,
                    "original_height": HEIGHT,
                    "from_name": "tag",
                    "to_name": "image",
                }
            )
        annotation = {"id": 7, "was_cancelled": False, "result": results}
        tasks.append(
            {
                "id": number,
                "annotations": [{"was_cancelled": True, "result": []}, annotation],
                "data": {"image": f"/data/upload/1/0a1b2c3d-{stem}.jpg"},
            }
        )
        expected.add("all", stem, polygon_mask(number, {CAR: 1, ROAD: 2, TREE: 3}))
    write_image(root / "images" / "later.jpg", 50)
    tasks.append({"id": 99, "annotations": [], "data": {"image": "/data/upload/1/later.jpg"}})
    (root / "project-1-at-2026.json").write_text(json.dumps(tasks))
    return expected


MINIATURES: dict[str, Callable[[Path], Expected]] = {
    "plain": plain,
    "splits above": splits_above,
    "suffixes": suffixes,
    "suffixes in two folders": suffixes_across,
    "pair lists": pair_lists,
    "one-hot arrays": one_hot,
    "class folders": class_folders,
    "class endings": class_endings,
    "voc": voc,
    "voc with sbd": voc_aug,
    "sbd": sbd,
    "cityscapes": cityscapes,
    "cityscapes trainIds": lambda root: cityscapes(root, train_ids=True),
    "cityscapes coarse": lambda root: cityscapes(root, truth="gtCoarse"),
    "ade20k": ade20k,
    "camvid 11": camvid11,
    "camvid 32": camvid32,
    "camvid 32 repacked": lambda root: camvid32(root, repack=True),
    "coco": coco,
    "coco beside": coco_beside,
    "coco-stuff": coco_stuff,
    "labelme": labelme,
    "geojson": geojson,
    "cvat": cvat,
    "cvat palette": lambda root: cvat(root, palette=True),
    "roboflow": roboflow,
    "yolo": yolo,
    "yolo lists": yolo_lists,
    "ultralytics": ultralytics,
    "label studio": label_studio,
    "label studio png": lambda root: label_studio(root, png=True),
}
