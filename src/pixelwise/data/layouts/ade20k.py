"""ADE20K scene parsing benchmark (Zhou et al. 2017): images/ and annotations/, 150 classes."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import Table, read_lines
from pixelwise.data.image_files import MASK_SUFFIXES
from pixelwise.data.layouts.folder_names import first_names
from pixelwise.data.layouts.layout_classes import class_table, make_table, masks_in, sampled_values
from pixelwise.data.layouts.pairing import pair_splits
from pixelwise.data.source import Source
from pixelwise.errors import InputError

DESCRIPTION = "ADE20K: images/training/, annotations/training/ and the same with validation/"

_SPLITS = {"train": "training", "val": "validation"}
_CLASS_COUNT = 150
_OWN_VALUES = 64
"""More mask values than this, and none over 150, are those of ADE20K."""


def detect(root: Path) -> bool:
    if not all((root / folder / "training").is_dir() for folder in ("images", "annotations")):
        return False
    # Other datasets have the same folders, and read them with 0 as a class.
    if any((root / name).is_file() for name in ("objectInfo150.txt", "sceneCategories.txt")):
        return True
    masks = root / "annotations" / "training"
    if any(name.startswith("ADE_") for name in first_names(masks, MASK_SUFFIXES)):
        return True
    values = sampled_values(masks_in(masks))
    return len(values) > _OWN_VALUES and max(values) <= _CLASS_COUNT


def read(root: Path) -> Source:
    notes: list[str] = []
    folders = [
        (split, root / "images" / name, root / "annotations" / name)
        for split, name in _SPLITS.items()
    ]
    present = [entry for entry in folders if entry[1].is_dir() or entry[2].is_dir()]
    splits = pair_splits(root, present, notes=notes)
    table = class_table(root, notes)
    if table is None:
        table = _object_info(root / "objectInfo150.txt")
        source = "names from" if table.path.is_file() else "for their names, add"
        notes.append(
            f"ADE20K: {len(table.classes)} classes ({source} {table.path}); 0 (other) is ignored"
        )
    return Source(root, "ade20k", splits, table.classes, table.has_colors, notes)


def _object_info(path: Path) -> Table:
    """Read objectInfo150.txt: a header, then tab-separated Idx, Ratio, Train, Val, Stuff, Name."""
    names = [f"class_{value}" for value in range(1, _CLASS_COUNT + 1)]
    values = list(range(1, _CLASS_COUNT + 1))
    if path.is_file():
        rows = [line.split("\t") for line in read_lines(path)[1:] if line.strip()]
        try:
            values = [int(row[0]) for row in rows]
        except ValueError as error:
            raise InputError(f"{path}: {error}: start each line with the class number") from error
        synonyms = [row[-1].strip() for row in rows]
        # The first synonym is the name, unless another class has the same one.
        first = [name.split(",")[0].strip() for name in synonyms]
        names = [
            short if first.count(short) == 1 else name
            for short, name in zip(first, synonyms, strict=True)
        ]
    return make_table(path, names, values, ignore=0)
