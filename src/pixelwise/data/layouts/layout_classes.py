"""Classes of a layout: a class table in the folder, or names above a background class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from pixelwise.data.class_tables import Table, find_table, read_lines
from pixelwise.data.classes import Classes
from pixelwise.data.image_files import MASK_SUFFIXES
from pixelwise.data.layouts.error_handling import error_context
from pixelwise.data.layouts.folder_names import first_names
from pixelwise.data.mask_files import StoredMask, read_stored_mask
from pixelwise.data.voc_palette import voc_color
from pixelwise.errors import InputError

BACKGROUND = "background"
_SAMPLED_MASKS = 8
_BACKGROUND_NAMES = frozenset({"background", "_background_"})
IGNORED_NAMES = frozenset({"__ignore__"})
"""The label that labelme uses for ignored regions."""


def class_table(root: Path, notes: list[str]) -> Table | None:
    """Read the class table in `root` and add a note about it; None if there is no table.

    Raises:
        InputError: If the table cannot be read.
    """
    table = find_table(root)
    if table is not None:
        notes.append(table.note())
    return table


def make_table(
    path: Path, names: list[str], values: list[int] | None = None, ignore: int | None = None
) -> Table:
    """Make a class table without colors from the names in the file `path`, which errors mention."""
    with error_context(path):
        return Table(Classes.make(names, values=values, ignore=ignore), False, path)


def masks_in(folder: Path) -> list[Path]:
    """The masks among the first files of a folder."""
    return [folder / name for name in sorted(first_names(folder, MASK_SUFFIXES))]


def sampled_masks(paths: Sequence[Path], most: int = _SAMPLED_MASKS) -> list[StoredMask]:
    """A few of these masks, without those that cannot be read."""
    masks = []
    for path in paths[:: max(1, len(paths) // most)][:most]:
        with suppress(InputError):  # reading the dataset reports it
            masks.append(read_stored_mask(path))
    return masks


def sampled_values(paths: Sequence[Path]) -> set[int]:
    """The values in a few of these index masks; empty if there are other masks."""
    masks = sampled_masks(paths)
    if any(mask.values.ndim != 2 for mask in masks):
        return set()
    return {value for mask in masks for value in np.unique(mask.values).tolist()}


def classes_above_background(path: Path, names: list[str]) -> tuple[Classes, dict[str, int]]:
    """Make classes with the background as value 0 and `names` from 1 on, in VOC's colors.

    Args:
        path: File that holds the names; errors mention it.
        names: Label names, normalized. A name for the background gets 0; a name in IGNORED_NAMES
            gets 255, the ignored value.

    Returns:
        The classes, and the mask value of each name.

    Raises:
        InputError: If there are too many names, or a name is empty or used twice.
    """
    foreground = [
        name
        for name in names
        if name.casefold() not in _BACKGROUND_NAMES and name not in IGNORED_NAMES
    ]
    values = {name: 255 if name in IGNORED_NAMES else 0 for name in names}
    values |= {name: value for value, name in enumerate(foreground, start=1)}
    with error_context(path):
        classes = Classes.make(
            [BACKGROUND, *foreground],
            colors=[voc_color(value & 255) for value in range(len(foreground) + 1)],
            ignore=None if IGNORED_NAMES.isdisjoint(names) else 255,
            ignore_color=voc_color(255),
        )
    return classes, values


def check_numbering(masks: Iterable[Path]) -> None:
    """Check that the masks number their classes alike, where each folder lists its own names.

    labelme writes a folder for each image, in which the classes are numbered by their first use.

    Raises:
        InputError: If two folders list other names.
    """
    lists = (folder / "label_names.txt" for folder in dict.fromkeys(path.parent for path in masks))
    present = [path for path in lists if path.is_file()]
    for path in present[1:]:
        if read_lines(path) != read_lines(present[0]):
            raise InputError(
                f"{path}: lists other classes than {present[0]}, so that equal mask values mean "
                "different classes: give the JSON files of labelme instead of the masks"
            )
