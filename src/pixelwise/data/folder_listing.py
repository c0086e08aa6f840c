"""List the folders of a dataset: the only code that does, so that all layouts see the same files.

Hidden files and the files that file managers, archives and network drives leave behind are never
data. A link whose target is missing is listed as a file: reading it reports the problem.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from pixelwise.errors import InputError

_NOT_DATA = frozenset(
    {
        "__macosx",
        "__pycache__",
        "@eadir",
        "@tmp",
        "#recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    }
)


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name can be part of a dataset."""
    return not name.startswith(".") and name.casefold() not in _NOT_DATA


def list_entries(folder: Path) -> list[Path]:
    """List the visible files and folders directly in `folder`, by name.

    Raises:
        InputError: If the folder cannot be listed.
    """
    return sorted(Path(entry.path) for entry in _scan(folder))


def list_files(folder: Path, suffixes: Collection[str] | None = None) -> list[Path]:
    """List the visible files directly in `folder`, by name.

    Args:
        folder: An existing folder.
        suffixes: Lower-case suffixes to keep, such as ".png"; None for all. The letter case of the
            files' suffixes does not matter.

    Raises:
        InputError: If the folder cannot be listed.
    """
    return sorted(
        Path(entry.path)
        for entry in _scan(folder)
        if _has_suffix(entry.name, suffixes) and _is_file(entry)
    )


def list_folders(folder: Path) -> list[Path]:
    """List the visible folders directly in `folder`, by name; links to folders are among them.

    Raises:
        InputError: If the folder cannot be listed.
    """
    return sorted(Path(entry.path) for entry in _scan(folder) if entry.is_dir())


def walk_folders(folder: Path) -> Iterator[Path]:
    """Yield `folder` and all visible folders below it, in the order of their paths.

    Links to folders are followed; a folder that is reached twice is yielded once.

    Raises:
        InputError: If a folder cannot be listed.
    """
    seen: set[str] = set()
    pending = [folder]
    while pending:
        current = pending.pop()
        real = os.path.realpath(current)
        if real not in seen:
            seen.add(real)
            yield current
            pending += reversed(list_folders(current))


def walk_files(folder: Path, suffixes: Collection[str] | None = None) -> Iterator[Path]:
    """Yield the visible files in `folder` and all folders below it; see `list_files`.

    Raises:
        InputError: If a folder cannot be listed.
    """
    for each in walk_folders(folder):
        yield from list_files(each, suffixes)


def first_names(folder: Path, suffixes: Collection[str], limit: int | None) -> list[str]:
    """Return the visible names with these suffixes among the first `limit` names of `folder`.

    The names are in no particular order, and may be names of folders. There are none if `folder`
    does not exist.

    Args:
        folder: The folder.
        suffixes: As in `list_files`.
        limit: How many entries to read at most; None for all.

    Raises:
        InputError: If the folder cannot be listed.
    """
    if not folder.is_dir():
        return []
    names = (entry.name for entry in islice(_scan(folder), limit))
    return [name for name in names if _has_suffix(name, suffixes)]


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if is_visible(entry.name))
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be listed ({error.strerror}): check the folder and its permissions"
        ) from error


def _has_suffix(name: str, suffixes: Collection[str] | None) -> bool:
    return suffixes is None or Path(name).suffix.lower() in suffixes


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is a file, or a link whose target is missing."""
    return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
