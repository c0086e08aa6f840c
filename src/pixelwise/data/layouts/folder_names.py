"""Common names of split folders, and cheap listings of a folder."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data import folder_listing
from pixelwise.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIXES
from pixelwise.data.source import SPLITS
from pixelwise.errors import InputError

ALIASES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

MAX_ENTRIES = 1000
"""Number of folder entries that detection reads at most."""


def folders_in(root: Path) -> dict[str, Path]:
    """The folders directly in `root`, by lower-case name.

    Raises:
        InputError: If the names of two folders differ in letter case only.
    """
    folders: dict[str, Path] = {}
    for folder in folder_listing.list_folders(root) if root.is_dir() else []:
        first = folders.setdefault(folder.name.casefold(), folder)
        if first is not folder:
            raise InputError(
                f"{folder}: its name differs from {first.name} in letter case only: merge the "
                "folders, or rename one"
            )
    return folders


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
    return folder_listing.first_names(folder, suffixes, limit)


def has_images(folder: Path) -> bool:
    return bool(first_names(folder, IMAGE_SUFFIXES | MASK_SUFFIXES))


def data_yaml(root: Path) -> Path | None:
    """The dataset description of Ultralytics' tools, or None."""
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"):
        if (root / name).is_file():
            return root / name
    return None
