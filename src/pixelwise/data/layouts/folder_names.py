"""What people call their splits and folders, and quick looks into a folder."""

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

LOOKED_AT = 1000
"""Names of a folder that a quick look goes through, at most."""


def folders_in(root: Path) -> dict[str, Path]:
    """The folders directly in `root`, by their name in lower case."""
    if not root.is_dir():
        return {}
    with os.scandir(root) as entries:
        return {entry.name.casefold(): Path(entry.path) for entry in entries if entry.is_dir()}


def split_folders(root: Path) -> dict[str, Path]:
    """train, val and test to the folders of `root` that are called so, or nearly so."""
    present = folders_in(root)
    return {
        split: present[alias]
        for split in SPLITS
        for alias in reversed(ALIASES[split])
        if alias in present
    }


def first_names(
    folder: Path, suffixes: frozenset[str], *, most: int | None = LOOKED_AT
) -> list[str]:
    """Names of files with these suffixes among the first `most` (None: all) in `folder`."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [
            entry.name
            for entry in islice(entries, most)
            if not entry.name.startswith(".") and Path(entry.name).suffix.lower() in suffixes
        ]


def has_images(folder: Path) -> bool:
    return bool(first_names(folder, IMAGE_SUFFIXES | MASK_SUFFIXES))


def data_yaml(root: Path) -> Path | None:
    """The YAML file by which Ultralytics' tools know a data set, or None."""
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"):
        if (root / name).is_file():
            return root / name
    return None
