"""Infer the classes of masks that come without a class table, from their values or colors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE, Classes, distinct_colors, listed, pack_rgb, unpack_rgb
from pixelwise.data.instance_ids import check_instance_ids
from pixelwise.data.mask_readings import choose_readings
from pixelwise.data.pair_report import PairReport
from pixelwise.data.source import NO_DATA, Source
from pixelwise.errors import InputError

MAX_INFERRED_CLASSES = 64
"""More values or colors than this, without a class table, mean blurred or resized masks."""

TONE_SPACING = 12
"""Class numbers beside 255 that are this far apart on average may be gray tones."""


def infer_classes(
    source: Source, pairs: Sequence[PairReport], *, has_class_table: bool
) -> Classes | None:
    """Return the classes of the dataset, inferred from its masks if no table defines them.

    Where the numbers in the files do not identify the classes, samples and reports are changed to
    another reading: see `mask_readings`. What is assumed is added to `source.notes`.

    Args:
        source: The dataset.
        pairs: Reports of all pairs.
        has_class_table: Whether `source.classes` come from the dataset itself.

    Returns:
        The classes; None if no mask can be read.

    Raises:
        InputError: If the values or colors cannot be classes.
    """
    if source.has_no_data:
        pairs = [_without_no_data(pair) for pair in pairs]
    readable = [pair for pair in pairs if pair.mask.readable and len(pair.mask.values)]
    used = [pair for pair in readable if pair.mask.representative] or readable
    choose_readings(source, readable, has_class_table=has_class_table)
    classes = source.classes
    if used and classes is None and all(pair.mask.is_rgb for pair in used):
        source.rgb_allowed = True
        check_instance_ids(source, used)
        return _classes_from_colors(source, used)
    index = [pair for pair in used if not pair.mask.is_rgb]
    if classes is not None or not index:
        return classes
    _check_mixed_binary(source, index)
    check_instance_ids(source, index)
    values = np.unique(np.concatenate([pair.mask.values for pair in index])).tolist()
    palettes = [pair.mask.palette for pair in index if pair.mask.palette is not None]
    return _classes_from_values(source, values, palettes[0] if palettes else None)


def _without_no_data(pair: PairReport) -> PairReport:
    kept = pair.mask.values != NO_DATA
    mask = replace(pair.mask, values=pair.mask.values[kept], counts=pair.mask.counts[kept])
    return replace(pair, mask=mask)


def _check_mixed_binary(source: Source, index: Sequence[PairReport]) -> None:
    """Raise InputError if some masks hold 0 and 1, and others 0 and 255."""
    present = [(set(pair.mask.values.tolist()), pair.mask.path) for pair in index]
    if not all(values <= {0, 1} or values <= {0, 255} for values, _ in present):
        return
    ones, whites = ([path for values, path in present if n in values] for n in (1, 255))
    if ones and whites:
        raise InputError(
            f"{source.root}: {len(ones)} masks hold 0 and 1, such as {ones[0].name}, but "
            f"{len(whites)} hold 0 and 255, such as {whites[0].name}: if both mark the same class, "
            f"write {source.root / 'data.toml'} with "
            'values = {"0" = "background", "1,255" = "foreground"}; if 255 marks pixels to ignore, '
            'with values = {"0" = "background", "1" = "foreground", "255" = "ignore"}'
        )


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
    if values == [255]:
        raise InputError(
            f"{source.root}: all masks hold only 255, which marks ignored pixels beside other "
            "values, so that there is nothing to learn: export the masks again with a value for "
            "each class"
        )
    if _may_be_tones(values):
        raise InputError(
            f"{source.root}: the masks hold the values {listed(values)}: 255 is ignored if they "
            "are class numbers, but a class if they are gray tones: write "
            f"{table} with the `value` of each class, and `ignore = 255` if it is ignored"
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
    ignore_color = (0, 0, 0)
    if palette is not None and len(palette) > max(values):
        stored = unpack_rgb(pack_rgb(palette))
        in_use = [stored[value] for value in values]
        if len(set(in_use)) == len(in_use):
            colors = tuple(in_use)
            ignore_color = stored[255] if len(stored) > 255 else ignore_color
    source.notes.append(f"assumed {assumed}; to change this, write {table} with the class names")
    return Classes.make(
        names, colors=colors, values=values, ignore=ignore, ignore_color=ignore_color
    )


def _may_be_tones(values: list[int]) -> bool:
    """Whether 255 and other values may be gray tones spread from black to white."""
    others = values[:-1]
    return values[-1] == 255 and len(others) > 1 and others[-1] >= TONE_SPACING * len(others)


def _classes_from_colors(source: Source, pairs: Sequence[PairReport]) -> Classes:
    """Name the colors of RGB masks color_1, color_2, ..., those of palettes by their value."""
    colors = np.unique(np.concatenate([pair.mask.values for pair in pairs]))
    table = source.root / "classes.toml"
    if len(colors) > MAX_INFERRED_CLASSES:
        raise InputError(
            f"{source.root}: more than {MAX_INFERRED_CLASSES} different colors in the RGB masks, "
            "too many for classes (soft edges, or images?): export the masks without smoothing, or "
            f"write {table} with a name and a color for each class"
        )
    values = _palette_values(pairs)
    ignored = [color for color in colors.tolist() if set(values.get(color, ())) == {255}][
        : len(colors) - 1
    ]
    rgb = unpack_rgb(colors[~np.isin(colors, ignored)])
    names = [f"color_{number}" for number in range(1, len(rgb) + 1)]
    # Names that the user knows: the first values of the colors, if they differ.
    numbers = [values[color][0] for color in colors.tolist() if color in values.keys() - {*ignored}]
    if len(set(numbers)) == len(rgb):
        order = np.argsort(numbers)
        rgb, names = [rgb[i] for i in order], [f"class_{numbers[i]}" for i in order]
    shown = ", ".join(f"{name} {color}" for name, color in zip(names, rgb, strict=True))
    ignore_color = unpack_rgb(np.array(ignored or [0], dtype=np.uint32))[0]
    if ignored:
        shown += f"; {ignore_color}, which is value 255 in every palette, is ignored"
    source.notes.append(
        f"assumed {len(rgb)} classes from the colors of the RGB masks: {shown}; to change this, "
        f"write {table} with a name and a color for each class"
    )
    ignore = IGNORE if ignored else None
    return Classes.make(names, colors=rgb, ignore=ignore, ignore_color=ignore_color)


def _palette_values(pairs: Sequence[PairReport]) -> dict[int, list[int]]:
    """Return the values that each packed color has in masks with a palette; {} without palettes."""
    found: dict[int, list[int]] = {}
    for pair in pairs:
        if pair.mask.palette is None:
            return {}
        packed = pack_rgb(pair.mask.palette).tolist()
        for color in pair.mask.values.tolist():
            found.setdefault(color, []).append(packed.index(color))
    return found
