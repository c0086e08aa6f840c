"""Read the class tables that annotation tools write beside the masks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pixelwise.data.classes import Classes, Color, read_classes_toml, toml_has_colors
from pixelwise.errors import InputError
from pixelwise.file_io import read_rows, read_text

VOID = frozenset({"void", "ignore", "ignored", "__ignore__", "unlabeled"})
"""Names that annotation tools give to ignored pixels."""


@dataclass(frozen=True)
class Table:
    """Classes read from `path`; `has_colors` tells whether the file contains their colors."""

    classes: Classes
    has_colors: bool
    path: Path

    def note(self) -> str:
        text = f"{len(self.classes)} classes from {self.path}"
        if self.classes.ignore is not None:
            text += f"; {self.classes.ignore} is ignored"
        return text


def find_table(root: Path) -> Table | None:
    """Read the first class table in `root`: classes.toml, or the table of an annotation tool.

    Returns:
        The table, or None if there is none.

    Raises:
        InputError: If the table cannot be read.
    """
    for name, read in _READERS.items():
        path = root / name
        if path.is_file():
            return read(path)
    return None


def _classes_toml(path: Path) -> Table:
    return Table(read_classes_toml(path), toml_has_colors(path), path)


def read_class_dict(path: Path) -> Table:
    """Read class_dict.csv: a header, then `name, r, g, b`; the value of a class is its position."""
    entries = []
    for number, cells in enumerate(read_rows(path), start=1):
        if not any(cells) or (number == 1 and not cells[-1].isdigit()):
            continue
        if len(cells) != 4 or not all(cell.isdigit() for cell in cells[1:]):
            raise InputError(f"{path}: line {number}: write name, r, g, b")
        entries.append((cells[0], (int(cells[1]), int(cells[2]), int(cells[3]))))
    return _from_entries(path, entries)


def read_label_colors(path: Path) -> Table:
    """Read CamVid's label_colors.txt: lines `r g b name`; the value of a class is its position."""
    pattern = r"(?P<r>\d+)[\s,]+(?P<g>\d+)[\s,]+(?P<b>\d+)[\s,]+(?P<name>\S.*)"
    return _read_colors(path, pattern, form="r g b name", header=True)


def read_labelmap(path: Path) -> Table:
    """Read CVAT's labelmap.txt: lines `name:r,g,b:parts:actions`; `#` starts a comment."""
    pattern = r"(?P<name>.+?):(?P<r>\d+),(?P<g>\d+),(?P<b>\d+)(?::[^:]*){0,2}"
    return _read_colors(path, pattern, form="name:r,g,b::")


def _read_colors(path: Path, pattern: str, *, form: str, header: bool = False) -> Table:
    """Read a class per line; `#` starts a comment. With `header`, the first line may be one."""
    entries = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(pattern, line.strip())
        if match:
            color = (int(match["r"]), int(match["g"]), int(match["b"]))
            entries.append((match["name"].strip(), color))
        elif number > header:
            raise InputError(f"{path}: line {number}: write {form}")
    return _from_entries(path, entries)


def read_names(path: Path) -> Table:
    """Read class_names.txt: one name per line; the value of a class is its position.

    Files of labelme start with `_background_`, or with `__ignore__`, which has no position: their
    masks hold 255 for ignored pixels.
    """
    names = [line.strip() for line in read_lines(path) if line.strip()]
    from_labelme = names[:1] in (["__ignore__"], ["_background_"])
    names = names[1:] if names[:1] == ["__ignore__"] else names
    if from_labelme and names[:1] == ["_background_"]:
        names[0] = "background"
    try:
        classes = Classes.make(names, ignore=255 if from_labelme else None)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Table(classes, False, path)


_READERS: dict[str, Callable[[Path], Table]] = {
    "classes.toml": _classes_toml,
    "class_dict.csv": read_class_dict,
    "label_colors.txt": read_label_colors,
    "labelmap.txt": read_labelmap,
    "class_names.txt": read_names,
}


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 text file. Raises InputError if that fails."""
    return read_text(path).splitlines()


def _from_entries(path: Path, entries: list[tuple[str, Color]]) -> Table:
    void = [value for value, (name, _) in enumerate(entries) if name.casefold() in VOID]
    values = [value for value in range(len(entries)) if value not in void[:1]]
    try:
        classes = Classes.make(
            [entries[value][0] for value in values],
            colors=[entries[value][1] for value in values],
            values=values,
            ignore=void[0] if void else None,
            ignore_color=entries[void[0]][1] if void else (0, 0, 0),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Table(classes, True, path)
