"""How large the labeled things are, against what a network can see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.doctor.dataset_scan import UNKNOWN, DatasetScan
from pixelwise.doctor.diagnosis import Finding, Kind, Severity

TINY = Kind("tiny-objects", Severity.WARNING, "Things of a few pixels")
SPECKS = Kind("specks", Severity.NOTE, "Specks in the masks")

SPECK = 4
"""Parts of at most this many pixels are slips of the pen and no objects."""
TINY_SIDE = 6.0
"""Pixels a side: with the augmentation's scale of 0.5 that is 3, less than one cell of the finest
map (stride 4) from which the default network draws its borders."""
MANY_SPECKS = 10.0
"""A mask, on average."""


def areas_by_class(scan: DatasetScan) -> list[NDArray[np.int64]]:
    """For each class the areas of all its connected parts, in pixels, rising."""
    assert scan.classes is not None
    found: list[list[NDArray[np.int64]]] = [[] for _ in scan.classes.names]
    for pair_report in scan.usable():
        mask = pair_report.mask
        places = scan.indices(mask)[mask.object_keys]
        for place in np.unique(places):
            if place not in {IGNORE, UNKNOWN}:
                found[place].append(mask.object_areas[places == place])
    return [
        np.sort(np.concatenate(areas)) if areas else np.empty(0, dtype=np.int64) for areas in found
    ]


def area_up_to(areas: NDArray[np.int64], share: float) -> int | None:
    """The area up to which objects hold this share of the pixels; `areas` rising."""
    if len(areas) == 0:
        return None
    sums = np.cumsum(areas)
    return int(areas[np.searchsorted(sums, sums[-1] * share)])


def tiny_objects(scan: DatasetScan) -> Iterator[Finding]:
    if scan.classes is None:
        return
    for name, areas in zip(scan.classes.names, areas_by_class(scan), strict=True):
        usual = area_up_to(areas[areas > SPECK], 0.5)
        if usual is not None and usual < TINY_SIDE**2:
            yield TINY.found(
                [],
                f"half of {name} lies in parts of at most {usual} pixels, about "
                f"{usual**0.5:.0f} a side: a network hardly sees them",
                remedy='--set augmentation.scale="[1.0, 2.0]", so that they are not made smaller '
                "still; or images of a higher resolution",
            )


def specks(scan: DatasetScan) -> Iterator[Finding]:
    if scan.classes is None:
        return
    number = sum(1 for _ in scan.usable())
    small = [int((areas <= SPECK).sum()) for areas in areas_by_class(scan)]
    if number == 0 or sum(small) < MANY_SPECKS * number:
        return
    worst = scan.classes.names[int(np.argmax(small))]
    yield SPECKS.found(
        [],
        f"{sum(small) / number:.0f} parts of at most {SPECK} pixels in a mask on average, most of "
        f"them {worst}: no objects, but noise of the labelling or the scaling",
        remedy="nothing, for training; smooth them away if you count objects later",
    )
