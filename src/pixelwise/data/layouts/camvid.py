"""CamVid as published by the SegNet authors: train/ and trainannot/, val/, test/; 11 classes."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from pixelwise.data.class_tables import read_label_colors
from pixelwise.data.classes import read_classes_toml
from pixelwise.data.image_files import MASK_SUFFIXES
from pixelwise.data.layouts.folder_names import first_names
from pixelwise.data.layouts.layout_classes import masks_in, sampled_values
from pixelwise.data.layouts.pairing import pair_splits
from pixelwise.data.source import SPLITS, Source
from pixelwise.errors import InputError, defer_errors
from pixelwise.file_io import read_text

NAME = re.compile(r"0001TP|0006R0|0016E5|Seq05VD")
_MOST_CLASSES = 8

DESCRIPTION = "CamVid: train/ and trainannot/, val/ and valannot/, test/ and testannot/"

# Brostow, Fauqueur and Cipolla 2008, in the 11 classes of SegNet (arXiv:1511.00561).
CLASSES = read_label_colors(Path(__file__).with_suffix(".txt")).classes


def detect(root: Path) -> bool:
    masks = [root / f"{s}annot" for s in SPLITS if (root / f"{s}annot").is_dir()]
    # Other datasets have the same folders; their numbers are other classes.
    if any(map(_has_its_names, masks)):
        return True
    return _has_its_lists(root) and any(map(_has_its_values, masks))


def _has_its_lists(root: Path) -> bool:
    """Whether train.txt or another list holds paths on the authors' machine; they are not used."""
    found = False
    for path in (root / f"{split}.txt" for split in SPLITS):
        with suppress(InputError):
            found |= path.is_file() and "/SegNet/" in read_text(path)
    return found


def _has_its_names(masks: Path) -> bool:
    return any(NAME.match(name) for name in first_names(masks, MASK_SUFFIXES))


def _has_its_values(masks: Path) -> bool:
    """Whether the masks hold most of the classes, and no other values."""
    values = sampled_values(masks_in(masks))
    return len(values) >= _MOST_CLASSES and max(values) <= len(CLASSES)


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
