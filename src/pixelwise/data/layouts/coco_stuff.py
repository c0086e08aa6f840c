"""COCO-Stuff (Caesar et al. 2018) as PNG: the id less one in each pixel, 255 unlabeled."""

from __future__ import annotations

import re
from pathlib import Path

from pixelwise.data.class_tables import find_table, read_lines
from pixelwise.data.classes import Classes
from pixelwise.data.image_files import MASK_SUFFIXES
from pixelwise.data.layouts.folder_names import first_names, folders_in
from pixelwise.data.layouts.pairing import pair_splits
from pixelwise.data.source import Source
from pixelwise.errors import InputError

DESCRIPTION = "COCO-Stuff: images/train2017 (or train2017/), stuffthingmaps/train2017 with PNG"

_MASKS = ("stuffthingmaps", "stuffthingmaps_trainval2017", "annotations")
_YEAR = re.compile(r"(train|val|test)20\d\d")


def detect(root: Path) -> bool:
    masks = _masks(root)
    return masks is not None and bool(_named(masks))


def _masks(root: Path) -> Path | None:
    present = folders_in(root)
    for name in _MASKS:
        folder = present.get(name)
        if folder and any(first_names(f, MASK_SUFFIXES) for f in _named(folder).values()):
            return folder
    return None


def _named(folder: Path) -> dict[str, Path]:
    """train2017 and its like to their folders."""
    return {name: path for name, path in folders_in(folder).items() if _YEAR.fullmatch(name)}


def read(root: Path) -> Source:
    masks = _masks(root)
    assert masks is not None  # as detect has found
    notes: list[str] = []
    parts = []
    for name, folder in sorted(_named(masks).items()):
        images = root / "images" / name
        parts.append((name[:-4], images if images.is_dir() else root / name, folder))
    splits = pair_splits(root, parts, notes=notes)
    table = find_table(root)
    if table is not None:
        notes.append(table.note())
        return Source(root, "coco-stuff", splits, table.classes, table.has_colors, notes)
    names = root / "labels.txt"
    if not names.is_file():
        notes.append(f"names of the classes need COCO-Stuff's {names}")
        return Source(root, "coco-stuff", splits, None, False, notes)
    classes = _labels(names)
    notes.append(f"{len(classes)} classes from {names}; 255 is ignored")
    return Source(root, "coco-stuff", splits, classes, False, notes)


def _labels(path: Path) -> Classes:
    """labels.txt: `1: person` a line, 0 for unlabeled; a mask holds the number less one."""
    entries = []
    for number, line in enumerate(read_lines(path), start=1):
        match = re.fullmatch(r"(\d+)\s*:\s*(\S.*?)\s*", line)
        if not match and line.strip():
            raise InputError(f"{path}: line {number}: write the number, a colon and the name")
        if match and match[1] != "0":
            entries.append((int(match[1]) - 1, match[2]))
    try:
        return Classes.make(
            [name for _, name in entries], values=[value for value, _ in entries], ignore=255
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
