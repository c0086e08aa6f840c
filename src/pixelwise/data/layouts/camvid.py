"""CamVid as published by the SegNet authors: train/ and trainannot/, val/, test/; 11 classes."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import read_label_colors
from pixelwise.data.classes import read_classes_toml
from pixelwise.data.layouts.pairing import pair_splits
from pixelwise.data.source import SPLITS, Source
from pixelwise.errors import defer_errors

DESCRIPTION = "CamVid: train/ and trainannot/, val/ and valannot/, test/ and testannot/"

# Brostow, Fauqueur and Cipolla 2008, in the 11 classes of SegNet (arXiv:1511.00561).
CLASSES = read_label_colors(Path(__file__).with_suffix(".txt")).classes


def detect(root: Path) -> bool:
    # train.txt and val.txt beside the folders hold paths on the authors' machine: not used.
    return any((root / f"{split}annot").is_dir() for split in SPLITS)


def read(root: Path) -> Source:
    notes: list[str] = []
    folders = [(split, root / split, root / f"{split}annot") for split in SPLITS]
    present = [entry for entry in folders if entry[1].is_dir() or entry[2].is_dir()]
    splits = pair_splits(root, present, notes=notes)
    table = root / "classes.toml"
    classes = CLASSES
    if table.exists():
        with defer_errors():
            classes = read_classes_toml(table)
            notes.append(f"published CamVid layout with {len(classes)} classes from {table}")
    else:
        notes.append("published CamVid layout: 11 classes, mask value 11 is void and ignored")
    return Source(root, "camvid", splits, classes, True, notes)
