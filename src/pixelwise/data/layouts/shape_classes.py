"""What the formats of outlines share: classes of names, with a background below them."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.classes import Classes
from pixelwise.data.voc_palette import voc_color
from pixelwise.errors import InputError

BACKGROUND = "background"
_BACKGROUNDS = frozenset({"background", "_background_"})
IGNORED = frozenset({"__ignore__"})
"""labelme's name for what is to be left out."""


def classes_above_background(path: Path, names: list[str]) -> tuple[Classes, dict[str, int]]:
    """Classes with the background as 0 and `names` from 1 on, and the mask value of each name.

    A name that means the background has its value, 0; one of IGNORED has 255, which is ignored.
    Colors are those of VOC's palette, which labelling tools give as well.

    Raises InputError that names `path` where they make no classes: too many, one twice, one empty.
    """
    kept = [name for name in names if name.casefold() not in _BACKGROUNDS and name not in IGNORED]
    values = {name: 255 if name in IGNORED else 0 for name in names}
    values |= {name: place for place, name in enumerate(kept, start=1)}
    ignored = any(name in IGNORED for name in names)
    try:
        classes = Classes.make(
            [BACKGROUND, *kept],
            colors=[voc_color(value & 255) for value in range(len(kept) + 1)],
            ignore=255 if ignored else None,
            ignore_color=voc_color(255),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return classes, values
