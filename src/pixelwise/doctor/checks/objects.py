"""The size of labeled objects, compared to what a network can resolve."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE, UNKNOWN
from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.pair_inspection import Scan

TINY = Kind("tiny-objects", Severity.WARNING, "Objects of a few pixels")
SPECKS = Kind("specks", Severity.NOTE, "Specks in the masks")

SPECK = 4
"""Connected components of at most this many pixels are labeling errors, not objects."""
TINY_SIDE = 6.0
"""Side in pixels: the augmentation's scale of 0.5 makes it 3, less than one cell of the finest
feature map (stride 4) from which the default network predicts borders."""
MANY_SPECKS = 10.0
"""Specks per mask, on average."""


def areas_by_class(scan: Scan) -> list[NDArray[np.int64]]:
    """Return the areas of the connected components of each class in pixels, ascending."""
    assert scan.classes is not None
    found: list[list[NDArray[np.int64]]] = [[] for _ in scan.classes.names]
    for pair in scan.usable():
        mask = pair.mask
        indices = scan.class_indices(mask)[mask.object_values]
        for index in np.unique(indices):
            if index not in {IGNORE, UNKNOWN}:
                found[index].append(mask.object_areas[indices == index])
    return [
        np.sort(np.concatenate(areas)) if areas else np.empty(0, dtype=np.int64) for areas in found
    ]


def area_up_to(areas: NDArray[np.int64], share: float) -> int | None:
    """Return the area up to which objects hold this share of the pixels; `areas` ascending."""
    if len(areas) == 0:
        return None
    sums = np.cumsum(areas)
    return int(areas[np.searchsorted(sums, sums[-1] * share)])


def tiny_objects(scan: Scan) -> Iterator[Finding]:
    if scan.classes is None:
        return
    for name, areas in zip(scan.classes.names, areas_by_class(scan), strict=True):
        typical = area_up_to(areas[areas > SPECK], 0.5)
        if typical is not None and typical < TINY_SIDE**2:
            yield TINY.found(
                [],
                f"half of {name} is in objects of at most {typical} pixels, about "
                f"{typical**0.5:.0f} per side: a network hardly sees them",
                remedy='--set augmentation.scale="[1.0, 2.0]", so that they are not downscaled '
                "further; or images of a higher resolution",
            )


def specks(scan: Scan) -> Iterator[Finding]:
    if scan.classes is None:
        return
    masks = sum(1 for _ in scan.usable())
    counts = [int((areas <= SPECK).sum()) for areas in areas_by_class(scan)]
    if masks == 0 or sum(counts) < MANY_SPECKS * masks:
        return
    most = scan.classes.names[int(np.argmax(counts))]
    yield SPECKS.found(
        [],
        f"{sum(counts) / masks:.0f} components of at most {SPECK} pixels per mask on average, most "
        f"of them {most}: noise of the labeling or of resizing",
        remedy="none needed for training; remove them if you count objects later",
    )
