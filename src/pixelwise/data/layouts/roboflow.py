"""Roboflow's "semantic segmentation masks": NAME.jpg, NAME_mask.png and _classes.csv per split."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import Table, find_table
from pixelwise.data.layouts.error_handling import collect_errors
from pixelwise.data.layouts.folder_names import split_folders
from pixelwise.data.layouts.layout_classes import make_table
from pixelwise.data.layouts.pairing import pair
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError, raise_problems
from pixelwise.file_io import read_rows

DESCRIPTION = "Roboflow semantic masks: train/, valid/, test/ with NAME_mask.png and _classes.csv"

TABLE = "_classes.csv"


def detect(root: Path) -> bool:
    return any((folder / TABLE).is_file() for folder in _folders(root).values())


def _folders(root: Path) -> dict[str, Path]:
    return split_folders(root) or {"all": root}


def read(root: Path) -> Source:
    notes: list[str] = []
    problems: list[str] = []
    splits: dict[str, list[Sample]] = {}
    tables: list[Table] = []
    for split, folder in _folders(root).items():
        with collect_errors(problems):
            splits[split] = pair(root, folder, folder, notes=notes, endings=("", "_mask"))
            if (folder / TABLE).is_file():
                tables.append(_read_table(folder / TABLE))
    if not tables:
        raise InputError(*problems)
    raise_problems(problems)
    notes = [note for note in notes if not note.endswith(TABLE)]  # the table was not skipped
    table = find_table(root) or tables[0]
    if table is tables[0]:
        for other in tables:
            if other.classes != table.classes:
                raise InputError(
                    f"{other.path}: differs from {table.path}: export the splits together"
                )
    notes.append(table.note())
    return Source(root, "roboflow", splits, table.classes, table.has_colors, notes)


def _read_table(path: Path) -> Table:
    """Read a header `Pixel Value, Class` and lines of a value and a name."""
    rows = [row for row in read_rows(path) if row]
    entries = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 2 or not row[0].isdigit():
            raise InputError(f"{path}: line {number}: write the pixel value, a comma and the name")
        entries.append((int(row[0]), row[1]))
    return make_table(path, [name for _, name in entries], [value for value, _ in entries])
