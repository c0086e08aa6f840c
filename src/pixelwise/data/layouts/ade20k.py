"""ADE20K's scene parsing benchmark (Zhou et al. 2017): images/ and annotations/, 150 classes."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import Table, find_table, read_lines
from pixelwise.data.classes import Classes
from pixelwise.data.layouts.pairing import pair_splits
from pixelwise.data.source import Source
from pixelwise.errors import InputError

DESCRIPTION = "ADE20K: images/training, annotations/training, and validation beside them"

_SPLITS = {"train": "training", "val": "validation"}
_COUNT = 150


def detect(root: Path) -> bool:
    return all((root / part / "training").is_dir() for part in ("images", "annotations"))


def read(root: Path) -> Source:
    notes: list[str] = []
    parts = [
        (split, root / "images" / name, root / "annotations" / name)
        for split, name in _SPLITS.items()
    ]
    present = [part for part in parts if part[1].is_dir() or part[2].is_dir()]
    splits = pair_splits(root, present, notes=notes)
    table = find_table(root)
    if table is not None:
        notes.append(table.note())
        return Source(root, "ade20k", splits, table.classes, table.has_colors, notes)
    table = _object_info(root / "objectInfo150.txt")
    where = f"named by {table.path}" if table.path.is_file() else f"names need {table.path}"
    notes.append(f"ADE20K: {len(table.classes)} classes, {where}; 0 (other) is ignored")
    return Source(root, "ade20k", splits, table.classes, False, notes)


def _object_info(path: Path) -> Table:
    """objectInfo150.txt: tabs between Idx, Ratio, Train, Val, Stuff, Name; a header."""
    names = [f"class_{value}" for value in range(1, _COUNT + 1)]
    values = list(range(1, _COUNT + 1))
    if path.is_file():
        rows = [line.split("\t") for line in read_lines(path)[1:] if line.strip()]
        try:
            values = [int(row[0]) for row in rows]
            full = [row[-1].strip() for row in rows]
        except ValueError as error:
            raise InputError(f"{path}: {error}: each line starts with a number") from error
        # The first of the synonyms, where no other class has it as well.
        first = [name.split(",")[0].strip() for name in full]
        names = [
            short if first.count(short) == 1 else name
            for short, name in zip(first, full, strict=True)
        ]
    try:
        return Table(Classes.make(names, values=values, ignore=0), False, path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
