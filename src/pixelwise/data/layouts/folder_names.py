"""Common names of split folders, and cheap listings of a folder."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from pixelwise.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIXES
from pixelwise.data.source import SPLITS

ALIASES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

MAX_ENTRIES = 1000
"""Number of folder entries that detection reads at most."""


def folders_in(root: Path) -> dict[str, Path]:
    """The folders directly in `root`, by lower-case name."""
    if not root.is_dir():
        return {}
    with os.scandir(root) as entries:
        return {entry.name.casefold(): Path(entry.path) for entry in entries if entry.is_dir()}


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of `root` that are named after a split or an alias of it, by split."""
    present = folders_in(root)
    return {
        split: present[alias]
        for split in SPLITS
        for alias in reversed(ALIASES[split])
        if alias in present
    }


def first_names(
    folder: Path, suffixes: frozenset[str], *, limit: int | None = MAX_ENTRIES
) -> list[str]:
    """Names with one of these suffixes among the first `limit` entries (None: all) of `folder`."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [
            entry.name
            for entry in islice(entries, limit)
            if not entry.name.startswith(".") and Path(entry.name).suffix.lower() in suffixes
        ]


def has_images(folder: Path) -> bool:
    return bool(first_names(folder, IMAGE_SUFFIXES | MASK_SUFFIXES))


def data_yaml(root: Path) -> Path | None:
    """The dataset description of Ultralytics' tools, or None."""
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"):
        if (root / name).is_file():
            return root / name
    return None
