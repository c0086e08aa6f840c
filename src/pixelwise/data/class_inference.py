"""Classes of masks that come without a table: from the numbers or colors seen, and said."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import Classes, Color, distinct_colors, listed
from pixelwise.data.image_files import mask_palette
from pixelwise.data.source import MaskFile, MaskSource, Source
from pixelwise.errors import InputError

MAX_GUESSED_CLASSES = 64
"""More different values or colors than this, without a class table: a blurred or scaled mask."""


def infer_classes_from_values(source: Source, values: list[int], example: MaskSource) -> Classes:
    """Classes from the mask values seen, with a note that says what was assumed.

    0 and 255 alone are background and foreground; 255 beside other values is ignored, as in VOC;
    every other value is a class. Colors come from a palette where the masks have one.
    """
    remedy = f"write {source.root / 'classes.toml'} with the classes' names to state otherwise"
    if len(values) > MAX_GUESSED_CLASSES:
        raise InputError(
            f"{source.root}: {len(values)} different values in the masks, too many for classes "
            f"(blurred or scaled masks?): {remedy}"
        )
    if any(value > 255 for value in values):
        raise InputError(
            f"{source.root}: values over 255 in 16-bit masks ({listed(values)}): which of them "
            f"are classes is not clear: write {source.root / 'classes.toml'} with a name and a "
            "value for each"
        )
    if _soft_edges(values):
        raise InputError(
            f"{source.root}: mask values {listed(values)}: 0 and 255 with soft edges between, as "
            "from a JPEG or a scaled mask: export the masks again as PNG, without smoothing"
        )
    ignore = None
    if values == [0, 255]:
        names = ["background", "foreground"]
        assumed = "binary masks: 0 is background, 255 is foreground"
    else:
        if 255 in values and len(values) > 1:
            ignore = 255
            values = values[:-1]
        names = [f"class_{value}" for value in values]
        assumed = f"{len(values)} classes from the mask values {', '.join(map(str, values))}"
        if ignore is not None:
            assumed += "; 255 is ignored"
    colors = distinct_colors(len(values))
    palette = mask_palette(example.path) if isinstance(example, MaskFile) else None
    if palette is not None and len(palette) > max(values):
        own = [(int(r), int(g), int(b)) for r, g, b in palette[values]]
        if len(set(own)) == len(own):
            colors = tuple(own)
    source.notes.append(f"assumed {assumed}; {remedy}")
    return Classes.make(names, colors=colors, values=values, ignore=ignore)


def _soft_edges(values: list[int]) -> bool:
    """Whether values lie close to 0 as well as close to 255: no numbering of classes does that."""
    return values[0] == 0 and values[-1] == 255 and any(235 <= value < 255 for value in values)


def infer_classes_from_colors(source: Source, colors: NDArray[np.uint32]) -> Classes:
    """Classes named color_1, color_2, ... from the packed colors of RGB masks, with a note."""
    table = source.root / "classes.toml"
    if len(colors) > MAX_GUESSED_CLASSES:
        raise InputError(
            f"{source.root}: {len(colors)} different colors in the RGB masks, too many for "
            "classes (soft edges, or images?): export the masks without smoothing, or write "
            f"{table} with a name and color for each class"
        )
    rgb: list[Color] = [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in colors]
    names = [f"color_{number}" for number in range(1, len(rgb) + 1)]
    shown = ", ".join(f"{name} {color}" for name, color in zip(names, rgb, strict=True))
    source.notes.append(
        f"assumed {len(rgb)} classes from the colors of the RGB masks: {shown}; write {table} "
        "with a name and color for each to state otherwise"
    )
    return Classes.make(names, colors=rgb)


def is_gray(colors: NDArray[np.uint32]) -> bool:
    """Whether red, green and blue are equal in every packed color."""
    return bool(((colors & 255) * 0x010101 == colors).all())
