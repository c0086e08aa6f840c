"""COCO-Stuff (Caesar et al. 2018) as PNG: pixels hold the class id minus one; 255 is unlabeled."""

from __future__ import annotations

import re
from pathlib import Path

from pixelwise.data.class_tables import Table, find_table, read_lines
from pixelwise.data.image_files import MASK_SUFFIXES
from pixelwise.data.layouts.folder_names import first_names, folders_in
from pixelwise.data.layouts.layout_classes import make_table
from pixelwise.data.layouts.pairing import pair_splits
from pixelwise.data.source import Source
from pixelwise.errors import InputError

DESCRIPTION = "COCO-Stuff: images/train2017/ (or train2017/) and stuffthingmaps/train2017/ with PNG"

_MASK_FOLDERS = ("stuffthingmaps", "stuffthingmaps_trainval2017", "annotations")
_SPLIT_AND_YEAR = re.compile(r"(train|val|test)20\d\d")


def detect(root: Path) -> bool:
    return _mask_root(root) is not None


def _mask_root(root: Path) -> Path | None:
    present = folders_in(root)
    for name in _MASK_FOLDERS:
        folder = present.get(name)
        if folder and any(first_names(f, MASK_SUFFIXES) for f in _split_folders(folder).values()):
            return folder
    return None


def _split_folders(folder: Path) -> dict[str, Path]:
    """The folders named train2017, val2017 and so on, by name."""
    return {n: path for n, path in folders_in(folder).items() if _SPLIT_AND_YEAR.fullmatch(n)}


def read(root: Path) -> Source:
    mask_root = _mask_root(root)
    assert mask_root is not None  # guaranteed by detect
    notes: list[str] = []
    folders = []
    for name, masks in sorted(_split_folders(mask_root).items()):
        images = root / "images" / name
        folders.append((name[:-4], images if images.is_dir() else root / name, masks))
    splits = pair_splits(root, folders, notes=notes)
    labels = root / "labels.txt"
    table = find_table(root) or (_read_labels(labels) if labels.is_file() else None)
    if table is None:
        notes.append(f"for the names of the classes, add COCO-Stuff's {labels}")
        return Source(root, "coco-stuff", splits, notes=notes)
    notes.append(table.note())
    return Source(root, "coco-stuff", splits, table.classes, table.has_colors, notes)


def _read_labels(path: Path) -> Table:
    """Read labels.txt: lines such as `1: person`, 0 for unlabeled; masks hold the id minus one."""
    entries = []
    for number, line in enumerate(read_lines(path), start=1):
        match = re.fullmatch(r"(\d+)\s*:\s*(\S.*?)\s*", line)
        if not match and line.strip():
            raise InputError(f"{path}: line {number}: write the id, a colon and the name")
        if match and match[1] != "0":
            entries.append((int(match[1]) - 1, match[2]))
    names, values = [name for _, name in entries], [value for value, _ in entries]
    return make_table(path, names, values, ignore=255)
