"""The rule of all commands that write: files that they did not write are replaced only on request.

A command recognizes its own files by a mark near their beginning (reports, JSON, tables of scores),
by the journal of the folder (masks and overlays), or by the manifest of the folder (exports). The
files of a folder that it does not write are never removed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pixelwise.errors import InputError
from pixelwise.file_io import check_writable

RESULT_NOTE = b"pixelwise predict; SHA-256 of the rest of the file: "
"""What the results of prediction contain, near their end."""
MARK_BYTES = 1 << 16
"""A mark is within this number of bytes from the beginning of a file."""


def json_mark(command: str) -> str:
    """Return the first entry of the JSON files of a command."""
    return f'"written_by": "pixelwise {command}"'


def html_mark(command: str) -> str:
    """Return the element of the head of the HTML pages of a command."""
    return f'<meta name="generator" content="pixelwise {command}">'


def has_mark(path: Path, mark: str) -> bool:
    """Return whether a file contains a mark near its beginning."""
    try:
        with path.open("rb") as stream:
            return mark.encode() in stream.read(MARK_BYTES)
    except OSError:
        return False


def check_output(path: Path, *, mark: str | None = None, overwrite: bool = False) -> None:
    """Raise InputError if a command cannot write a file, or must not replace it.

    Args:
        path: The file to write later.
        mark: What the file contains if the command has written it. None: any file is of others.
        overwrite: Whether to replace a file that the command did not write.
    """
    check_writable(path)
    if not overwrite and os.path.lexists(path) and not (mark and has_mark(path, mark)):
        raise files_of_others([path])


def files_of_others(paths: Sequence[Path], folder: Path | None = None) -> InputError:
    """Return the error for files that a command would replace and did not write, in one line."""
    if len(paths) == 1 or folder is None:
        return InputError(
            f"{paths[0]}: exists and was not written by this command: choose another place, or add "
            "--overwrite to replace it"
        )
    names = ", ".join(path.relative_to(folder).as_posix() for path in paths[:3])
    return InputError(
        f"{folder}: holds {len(paths)} files that this command would replace and did not write, "
        f"such as {names}: choose another place, or add --overwrite to replace them"
    )
