"""Decide over a whole dataset whether masks are read by their numbers, colors or gray tones.

Numbers are the rule. They fail where each file numbers the classes anew: palettes with the same
colors in another order, 1-bit files beside 8-bit ones, gray masks whose table gives gray colors.
Where two readings are possible, the dataset is refused and both are named.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE, UNKNOWN, Classes, listed, pack_rgb, unpack_rgb
from pixelwise.data.mask_files import MaskReading
from pixelwise.data.pair_report import MaskReport, PairReport, reread
from pixelwise.data.source import MaskFile, Source
from pixelwise.errors import InputError

Packed = NDArray[np.uint32]


def choose_readings(source: Source, pairs: Sequence[PairReport], *, has_class_table: bool) -> None:
    """Change samples and reports to the reading that the dataset needs, and note it in `source`.

    Args:
        source: The dataset; `classes` are None if they must be inferred.
        pairs: Reports of pairs with readable masks.
        has_class_table: Whether `source.classes` come from the dataset itself.

    Raises:
        InputError: If more than one reading is possible.
    """
    files = [p for p in pairs if p.sample.mask == MaskFile(p.mask.path) and len(p.mask.values)]
    _read_gray_rgb(source, files, has_class_table=has_class_table)
    files = [pair for pair in files if pair.mask.representative] or files
    index = [pair for pair in files if not pair.mask.is_rgb]
    if not index:
        return
    if _is_black_and_white(source, files):
        _apply(files, MaskReading.TONES)
        source.notes.append(
            "black and white masks in different formats: black is background, white is foreground"
        )
        return
    classes = source.classes if source.rgb_allowed else None
    palettes = [pair for pair in index if pair.mask.palette is not None]
    if palettes and _by_palette(source, files, palettes, classes):
        _apply(files if source.classes is None else palettes, MaskReading.COLORS)
        source.notes.append("palettes differ: masks are read by the colors of their palettes")
        return
    gray = [pair for pair in index if pair.mask.palette is None]
    if gray and classes is not None and _by_gray_color(source, gray, classes):
        _apply(gray, MaskReading.COLORS)
        source.notes.append("gray masks are read by the gray colors of the class table")
    elif gray:
        _check_depths(source, gray)


def _apply(pairs: Sequence[PairReport], reading: MaskReading) -> None:
    for pair in pairs:
        reread(pair, reading)


def _read_gray_rgb(source: Source, files: list[PairReport], *, has_class_table: bool) -> None:
    """Read RGB masks that are gray everywhere as the index masks that were saved as RGB."""
    rgb = [pair for pair in files if pair.mask.is_rgb]
    others = [pair for pair in files if not pair.mask.is_rgb]
    if not rgb or any(pair.mask.palette is not None for pair in others):
        return
    if source.rgb_allowed and has_class_table:
        return
    if not all(_is_gray(pair.mask.values) for pair in rgb if pair.mask.representative):
        return
    colors = np.unique(np.concatenate([pair.mask.values for pair in rgb]))
    classes = source.classes if source.rgb_allowed else None
    if classes is not None and (classes.find_colors(colors) != UNKNOWN).all():
        return
    _apply([pair for pair in rgb if _is_gray(pair.mask.values)], MaskReading.TONES)
    which = "all RGB masks are" if not others else f"{len(rgb)} RGB masks are"
    source.notes.append(f"{which} gray: they are read as index masks")


def _is_gray(colors: Packed) -> bool:
    return bool(((colors & 255) * 0x010101 == colors).all())


def _is_black_and_white(source: Source, files: list[PairReport]) -> bool:
    """Whether all masks are black and white, and store that in different numbers."""
    numbers: dict[int, set[int]] = {}
    for pair in files:
        mask = pair.mask
        if mask.is_rgb or int(mask.values[-1]) > 255 or not _has_colors(mask):
            return False
        colors = mask.values_by(MaskReading.COLORS)
        if not np.isin(colors, (0, 0xFFFFFF)).all() or len(set(colors.tolist())) < len(colors):
            return False
        for number, color in zip(mask.values.tolist(), colors.tolist(), strict=True):
            numbers.setdefault(color, set()).add(number)
    consistent = all(len(found) == 1 for found in numbers.values())
    if consistent and len(set().union(*numbers.values())) == len(numbers):
        return False
    classes = source.classes
    return classes is None or {0, 255} <= set(classes.values)


def _has_colors(mask: MaskReport) -> bool:
    return mask.palette is None or int(mask.values[-1]) < len(mask.palette)


def _by_palette(
    source: Source, files: list[PairReport], palettes: list[PairReport], classes: Classes | None
) -> bool:
    """Whether palette masks must be read by their colors.

    Args:
        source: The dataset.
        files: All masks that files hold.
        palettes: Those with a palette.
        classes: The classes, if their colors are known.
    """
    if not all(_has_colors(pair.mask) for pair in palettes):
        return False
    conflict = _palette_conflict(palettes)
    by_color = [pair.mask.values_by(MaskReading.COLORS) for pair in palettes]
    matches = all(len(np.unique(found)) == len(found) for found in by_color)
    colors = {color for found in by_color for color in found.tolist()}
    values = {value for pair in palettes for value in pair.mask.values.tolist()}
    if classes is not None:
        return _table_decides(palettes, classes, conflict)
    if source.classes is None:
        others = [pair for pair in files if pair.mask.palette is None]
        rgb = {color for p in others if p.mask.is_rgb for color in p.mask.values.tolist()}
        if others and all(pair.mask.is_rgb for pair in others):  # only colors are in all masks
            return matches and colors <= rgb
        if conflict and matches and not others and len(colors) <= len(values):
            return True
    if conflict:
        table = source.root / "classes.toml"
        raise InputError(
            f"{conflict}: if the colors identify the classes, write {table} with the color of each "
            "class; if the numbers do, save all masks with one palette"
        )
    return False


def _palette_conflict(palettes: list[PairReport]) -> str:
    """Say where two palettes give a value different colors, or a color different values."""
    of_value: dict[int, tuple[int, PairReport]] = {}
    of_color: dict[int, tuple[int, PairReport]] = {}
    for pair in palettes:
        found = pair.mask.values_by(MaskReading.COLORS).tolist()
        for value, color in zip(pair.mask.values.tolist(), found, strict=True):
            other, first = of_value.setdefault(value, (color, pair))
            if other != color:
                shown = [unpack_rgb(np.array([each]))[0] for each in (color, other)]
                return (
                    f"{pair.mask.path}: the palette gives value {value} the color {shown[0]}, but "
                    f"that of {first.mask.path} gives it {shown[1]}"
                )
            other, first = of_color.setdefault(color, (value, pair))
            if other != value and _color_of(pair, other) != color:  # one palette may have it twice
                shown = unpack_rgb(np.array([color]))
                return (
                    f"{pair.mask.path}: the palette gives the color {shown[0]} the value {value}, "
                    f"but that of {first.mask.path} gives it {other}"
                )
    return ""


def _color_of(pair: PairReport, value: int) -> int | None:
    palette = pair.mask.palette
    return int(pack_rgb(palette[value])) if palette is not None and value < len(palette) else None


def _table_decides(palettes: list[PairReport], classes: Classes, conflict: str) -> bool:
    """Whether the colors of palettes, which the class table contains, contradict the numbers."""
    masks = [pair.mask for pair in palettes]
    colors = [mask.values_by(MaskReading.COLORS) for mask in masks]
    by_value = [classes.find_values(mask.values) for mask in masks]
    by_color = [classes.find_colors(found) for found in colors]
    # Ignored pixels often have the color of a class, black: such colors decide nothing.
    tell = all(len(np.unique(found)) == len(found) for found in colors) and not (
        classes.ignore_color in classes.colors and any((v == IGNORE).any() for v in by_value)
    )
    if tell and all((found != UNKNOWN).all() for found in by_color):
        return any((a != b).any() for a, b in zip(by_color, by_value, strict=True))
    if conflict:
        raise InputError(
            f"{conflict}, and the class table does not tell all their colors apart: if the colors "
            "identify the classes, write them into the table; if the numbers do, save all masks "
            "with one palette"
        )
    return False


def _by_gray_color(source: Source, gray: list[PairReport], classes: Classes) -> bool:
    """Whether gray masks must be read by the gray colors of the class table."""
    masks = [pair.mask for pair in gray if int(pair.mask.values[-1]) <= 255]
    if len(masks) < len(gray):
        return False
    by_color = np.concatenate(
        [classes.find_colors(mask.values_by(MaskReading.COLORS)) for mask in masks]
    )
    by_value = np.concatenate([classes.find_values(mask.values) for mask in masks])
    if (by_color == UNKNOWN).any() or (by_color == by_value).all():
        return False
    if (by_value == UNKNOWN).any():
        return True
    if (source.root / "classes.toml").is_file():  # it gives values
        return False
    values = np.concatenate([mask.values for mask in masks])
    number = int(np.flatnonzero(by_color != by_value)[0])
    names = [
        classes.names[int(found[number])] if found[number] < len(classes) else "ignored"
        for found in (by_value, by_color)
    ]
    raise InputError(
        f"{masks[0].path}: value {values[number]} is {names[0]} by its position in the class table "
        f"and {names[1]} by its gray color: write {source.root / 'classes.toml'} with the `value` "
        "of each class"
    )


def _check_depths(source: Source, gray: list[PairReport]) -> None:
    """Raise InputError if masks of few bits agree with 8-bit masks by tone, but not by number."""
    few = [pair.mask for pair in gray if pair.mask.top < 255]
    many = {int(v) for pair in gray if pair.mask.top == 255 for v in pair.mask.values}
    if source.classes is not None:
        many = set(source.classes.values)
    if not few or not many:
        return
    numbers = {int(value) for mask in few for value in mask.values}
    tones = {int(tone) for mask in few for tone in mask.values_by(MaskReading.TONES)}
    if not numbers <= many | {0} and tones <= many:
        raise InputError(
            f"{few[0].path}: has values of {few[0].top.bit_length()} bits, "
            f"{listed(sorted(numbers))}, which other masks do not have; shown as gray tones of 8 "
            f"bits they are {listed(sorted(tones))}, which they have: save all masks with 8 bits"
        )
