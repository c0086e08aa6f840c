"""CamVid as the SegNet authors published it: train/ and trainannot/, val/, test/; 11 classes."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.classes import Classes, read_classes_toml
from pixelwise.data.layouts.pairing import pair_splits
from pixelwise.data.source import SPLITS, Source
from pixelwise.errors import tolerable

DESCRIPTION = "CamVid: train/ and trainannot/, val/ and valannot/, test/ and testannot/"

# Brostow, Fauqueur and Cipolla 2008, in the 11 classes of SegNet (arXiv:1511.00561).
CLASSES = Classes.make(
    (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    colors=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    ignore=11,
)


def detect(root: Path) -> bool:
    """The lists train.txt and val.txt beside the folders name the authors' paths: not needed."""
    return any((root / f"{split}annot").is_dir() for split in SPLITS)


def read(root: Path) -> Source:
    notes: list[str] = []
    parts = [(split, root / split, root / f"{split}annot") for split in SPLITS]
    present = [part for part in parts if part[1].is_dir() or part[2].is_dir()]
    splits = pair_splits(root, present, notes=notes)
    table = root / "classes.toml"
    classes = CLASSES
    if table.exists():
        with tolerable():
            classes = read_classes_toml(table)
            notes.append(f"the published CamVid layout with {len(classes)} classes from {table}")
    else:
        notes.append("the published CamVid layout: 11 classes, mask value 11 is void and ignored")
    return Source(root, "camvid", splits, classes, True, notes)
