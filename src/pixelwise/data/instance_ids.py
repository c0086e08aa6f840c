"""Recognize masks whose values number the objects of an image instead of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelwise.data.classes import listed
from pixelwise.data.connected_components import objects
from pixelwise.data.pair_report import PairReport
from pixelwise.data.source import Source
from pixelwise.errors import InputError

MIN_MASKS = 3
"""Fewer masks than this without a common value may just show different classes."""
MIN_OBJECTS = 3
"""At least one image of a dataset with instance ids has this many objects."""
COMPACT = 0.75
"""At least this fraction of the values is one connected region each, up to a tenth of its area."""
MAX_SAMPLED = 24
"""Masks that are read again to find out whether each value is one region."""


def check_instance_ids(source: Source, pairs: Sequence[PairReport]) -> None:
    """Raise InputError if the values of the masks look like instance ids.

    These count the objects of each image from 1, so that an image with five objects holds 1 to 5,
    or they are different in every image; and each is one region. Classes recur in many images, some
    of them are absent between others, and most have several regions.

    Args:
        source: The dataset, without a class table.
        pairs: Reports of readable masks, all of values or all of colors.
    """
    masks = [(pair, _foreground(pair)) for pair in pairs]
    labeled = [(pair, values) for pair, values in masks if values]
    if not labeled or not (_counted(labeled) or _unique(labeled)):
        return
    if not _is_compact([pair for pair, _ in labeled]):
        return
    few, many = (f(labeled, key=lambda each: len(each[1])) for f in (min, max))
    remedy = f"write {source.root / 'classes.toml'} with a name for each class"
    if pairs[0].mask.is_rgb:
        remedy += ", or save the masks with one value for all objects of a class"
    else:
        remedy = (
            f"write {source.root / 'data.toml'} with "
            'values = {"0" = "background", "1.." = "object"}, which makes them one class; if they '
            f"are classes, {remedy}"
        )
    raise InputError(
        f"{source.root}: the values of the masks look like numbers of objects (instance ids), not "
        f"classes: {few[0].mask.path.name} has {len(few[1])} and {many[0].mask.path.name} has "
        f"{len(many[1])} ({_shown(many)}): {remedy}"
    )


def _shown(entry: tuple[PairReport, list[int]]) -> str:
    pair, values = entry
    return "colors" if pair.mask.is_rgb else listed(values, most=4)


def _foreground(pair: PairReport) -> list[int]:
    """Return the values or packed colors of a mask except for background and ignored pixels."""
    return [value for value in pair.mask.values.tolist() if value not in {0, 255}]


def _counted(labeled: list[tuple[PairReport, list[int]]]) -> bool:
    """Whether every mask counts from 1 with few gaps, up to numbers that differ within a split."""
    highest: dict[str, set[int]] = {}
    for pair, values in labeled:
        highest.setdefault(pair.split, set()).add(values[-1])
    return (
        not labeled[0][0].mask.is_rgb
        and max(len(values) for _, values in labeled) >= MIN_OBJECTS
        and any(len(found) > 1 for found in highest.values())
        and all(values[-1] <= 1.2 * len(values) for _, values in labeled)
    )


def _unique(labeled: list[tuple[PairReport, list[int]]]) -> bool:
    """Whether the masks have several values each, and none of them in common."""
    count = sum(len(values) for _, values in labeled)
    several = len(labeled) >= MIN_MASKS and count >= 2 * len(labeled)
    return several and count == len({v for _, vs in labeled for v in vs})


def _is_compact(pairs: list[PairReport]) -> bool:
    """Whether most values of the masks are one connected region each."""
    compact = total = 0
    for pair in pairs[:: max(1, len(pairs) // MAX_SAMPLED)]:
        stored = pair.sample.mask.read(pair.mask.size)
        flat = stored if stored.ndim == 2 else stored @ np.array([1 << 16, 1 << 8, 1])
        values, areas = objects(flat)
        for value in np.unique(values[~np.isin(values, (0, 255))]):
            of_value = areas[values == value]
            compact += int(of_value.max()) >= 0.9 * int(of_value.sum())
            total += 1
    return compact >= COMPACT * total
