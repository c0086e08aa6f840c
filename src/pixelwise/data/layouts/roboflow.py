"""Roboflow's "semantic segmentation masks": NAME.jpg, NAME_mask.png and _classes.csv a split."""

from __future__ import annotations

import csv
from pathlib import Path

from pixelwise.data.class_tables import find_table, read_lines
from pixelwise.data.classes import Classes
from pixelwise.data.layouts.folder_names import split_folders
from pixelwise.data.layouts.pairing import pair
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError, refuse

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
    tables: dict[Path, Classes] = {}
    for split, folder in _folders(root).items():
        try:
            splits[split] = pair(root, folder, folder, notes=notes, mask_ending="_mask")
            if (folder / TABLE).is_file():
                tables[folder / TABLE] = _read_table(folder / TABLE)
        except InputError as error:
            problems += error.problems
    if not tables:
        raise InputError(*problems)
    refuse(problems)
    notes = [note for note in notes if not note.endswith(TABLE)]  # it is read, not left out
    own = find_table(root)
    if own is not None:
        notes.append(own.note())
        return Source(root, "roboflow", splits, own.classes, own.has_colors, notes)
    first, classes = next(iter(tables.items()))
    for path, others in tables.items():
        if others != classes:
            raise InputError(f"{path}: differs from {first}: export the splits together")
    notes.append(f"{len(classes)} classes from {first}")
    return Source(root, "roboflow", splits, classes, False, notes)


def _read_table(path: Path) -> Classes:
    """A header `Pixel Value, Class`, then a value and a name a line."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(read_lines(path)) if row]
    entries = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 2 or not row[0].isdigit():
            raise InputError(f"{path}: line {number}: write the pixel value, a comma and the name")
        entries.append((int(row[0]), row[1]))
    try:
        return Classes.make([name for _, name in entries], values=[value for value, _ in entries])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
