"""Infer the classes of masks that come without a class table, from their values or colors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import Classes, distinct_colors, listed, unpack_rgb
from pixelwise.data.image_files import mask_palette
from pixelwise.data.pair_report import PairReport
from pixelwise.data.source import GrayRgbFile, MaskFile, Source
from pixelwise.errors import InputError

MAX_INFERRED_CLASSES = 64
"""More values or colors than this, without a class table, mean blurred or resized masks."""


def infer_classes(
    source: Source, pairs: Sequence[PairReport], *, has_class_table: bool
) -> Classes | None:
    """Return the classes of the dataset, inferred from its masks if no table defines them.

    RGB masks that are gray everywhere are index masks that were saved as RGB: their samples and
    reports are changed to index masks. What is assumed is added to `source.notes`.

    Args:
        source: The dataset.
        pairs: Reports of all pairs.
        has_class_table: Whether `source.classes` come from the dataset itself.

    Returns:
        The classes; None if no mask can be read.

    Raises:
        InputError: If the values or colors cannot be classes.
    """
    readable = [pair for pair in pairs if pair.mask.readable and len(pair.mask.values)]
    used = [pair for pair in readable if pair.mask.representative] or readable
    classes = source.classes
    if used and all(pair.mask.is_rgb for pair in used) and (classes is None or source.rgb_allowed):
        colors = np.unique(np.concatenate([pair.mask.values for pair in used]))
        known = classes is not None and bool((classes.find_colors(colors) >= 0).all())
        if _is_gray(colors) and not has_class_table and not known:
            source.notes.append("all RGB masks are gray: they are read as index masks")
            for pair in readable:
                _read_as_index_mask(pair)
        elif classes is None:
            source.rgb_allowed = True
            return _classes_from_colors(source, colors)
    index = [pair for pair in used if not pair.mask.is_rgb]
    if classes is not None or not index:
        return classes
    values = np.unique(np.concatenate([pair.mask.values for pair in index])).tolist()
    first = index[0].sample.mask
    palette = mask_palette(first.path) if isinstance(first, MaskFile) else None
    return _classes_from_values(source, values, palette)


def _is_gray(colors: NDArray[np.uint32]) -> bool:
    return bool(((colors & 255) * 0x010101 == colors).all())


def _read_as_index_mask(pair: PairReport) -> None:
    mask = pair.mask
    pair.sample = replace(pair.sample, mask=GrayRgbFile(mask.path))
    if not mask.is_rgb or not _is_gray(mask.values):
        return
    mask.values, mask.is_rgb = (mask.values & 255).astype(np.uint8), False
    if pair.decoded is not None:
        raw, stored = pair.decoded
        pair.decoded = raw, stored[..., 0]


def _classes_from_values(
    source: Source, values: list[int], palette: NDArray[np.uint8] | None
) -> Classes:
    """Interpret ascending mask values.

    0 and 255 alone are background and foreground; 255 beside other values is ignored, as in VOC;
    every other value is a class. Colors come from the palette if there is one.
    """
    table = source.root / "classes.toml"
    if len(values) > MAX_INFERRED_CLASSES:
        raise InputError(
            f"{source.root}: the masks hold {len(values)} different values, too many for classes "
            f"(blurred or resized masks?): write {table} with the names of the classes"
        )
    if values[-1] > 255:
        raise InputError(
            f"{source.root}: the 16-bit masks hold values over 255 ({listed(values)}), and it is "
            f"not clear which of them are classes: write {table} with a name and a value for each"
        )
    # No numbering of classes has values close to 0 as well as close to 255.
    if values[0] == 0 and values[-1] == 255 and any(235 <= value < 255 for value in values):
        raise InputError(
            f"{source.root}: the masks hold the values {listed(values)}, which look like 0 and 255 "
            "with soft edges, as in a JPEG or a resized mask: export the masks again as PNG, "
            "without smoothing"
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
    if palette is not None and len(palette) > max(values):
        stored = [(int(r), int(g), int(b)) for r, g, b in palette[values]]
        if len(set(stored)) == len(stored):
            colors = tuple(stored)
    source.notes.append(f"assumed {assumed}; to change this, write {table} with the class names")
    return Classes.make(names, colors=colors, values=values, ignore=ignore)


def _classes_from_colors(source: Source, colors: NDArray[np.uint32]) -> Classes:
    """Name the packed colors of RGB masks color_1, color_2, ..."""
    table = source.root / "classes.toml"
    if len(colors) > MAX_INFERRED_CLASSES:
        raise InputError(
            f"{source.root}: more than {MAX_INFERRED_CLASSES} different colors in the RGB masks, "
            "too many for classes (soft edges, or images?): export the masks without smoothing, or "
            f"write {table} with a name and a color for each class"
        )
    rgb = unpack_rgb(colors)
    names = [f"color_{number}" for number in range(1, len(rgb) + 1)]
    shown = ", ".join(f"{name} {color}" for name, color in zip(names, rgb, strict=True))
    source.notes.append(
        f"assumed {len(rgb)} classes from the colors of the RGB masks: {shown}; to change this, "
        f"write {table} with a name and a color for each class"
    )
    return Classes.make(names, colors=rgb)
