"""Masks that belong to another image: most of the mask is contradicted, and another mask fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE

GRID = 32
"""Masks and predictions are compared on a grid of this many rows and columns."""
CLEAR = 0.1
"""By how much another mask must agree better than the image's own."""
HOPELESS = 0.5
"""A mask that agrees less than this times the median is that of no known image."""


@dataclass(frozen=True)
class Overview:
    """An image at a glance.

    Attributes:
        name: Name of the image.
        labels: (GRID * GRID,) labels at the points of a grid, with IGNORE.
        predicted: (GRID * GRID,) predicted classes at the same points.
        agreement: The fraction of its labeled pixels that are predicted; NaN if there are none.
    """

    name: str
    labels: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    agreement: float


def overview(
    name: str, labels: NDArray[np.uint8], predicted: NDArray[np.uint8], agreement: float
) -> Overview:
    """Sample the maps (H, W) of an image."""
    rows, columns = (
        ((np.arange(GRID) + 0.5) * side / GRID).astype(np.intp) for side in labels.shape
    )
    grid = np.ix_(rows, columns)
    return Overview(name, labels[grid].reshape(-1), predicted[grid].reshape(-1), agreement)


def find_mispaired(overviews: Sequence[Overview]) -> dict[str, str]:
    """Return the images whose mask is likely that of another image, and the name of that image.

    It is if another mask agrees clearly better with the prediction, and as well as masks usually
    do. The name is empty if the mask agrees with almost nothing and no other mask fits.
    """
    known = {view.name: view for view in overviews if not np.isnan(view.agreement)}
    if len(known) < 2:
        return {}
    usual = float(np.median([view.agreement for view in known.values()]))
    names = list(known)
    labels = np.stack([view.labels for view in known.values()])
    valid = labels != IGNORE
    few = valid.sum(axis=1) < GRID * GRID / 4  # too little is labeled to compare
    mispaired: dict[str, str] = {}

    def compare(view: Overview, clear: float) -> None:
        hits = ((labels == view.predicted) & valid).sum(axis=1)
        shares = np.where(few, 0, hits / np.maximum(1, valid.sum(axis=1)))
        own, best = shares[names.index(view.name)], int(shares.argmax())
        if shares[best] >= max(own + clear, usual - CLEAR) and names[best] != view.name:
            mispaired[view.name] = names[best]
        elif view.agreement < HOPELESS * usual:
            mispaired[view.name] = ""

    for view in known.values():
        if view.agreement <= usual - CLEAR:
            compare(view, CLEAR)
    for other in {*mispaired.values()} - mispaired.keys() - {""}:  # its mask is elsewhere
        compare(known[other], CLEAR / 2)
    return mispaired
