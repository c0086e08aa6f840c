"""Defaults that follow from the image sizes and pixel counts of a dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_CROP = 512
CROP_MULTIPLE = 32


def usual_crop(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the default crop (height, width): the median size, at most 512, in steps of 32."""
    height, width = (
        max(CROP_MULTIPLE, min(MAX_CROP, int(side)) // CROP_MULTIPLE * CROP_MULTIPLE)
        for side in np.median(np.array(sizes), axis=0)
    )
    return height, width


def median_frequency(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute class weights by median frequency balancing (arXiv:1411.4734, section 6.1).

    Args:
        counts: (C,) number of pixels of each class.

    Returns:
        (C,) median frequency / frequency; 1 for classes that do not occur.
    """
    frequency = counts / max(1, counts.sum())
    present = frequency > 0
    weights = np.ones(len(counts), dtype=np.float64)
    if present.any():
        weights[present] = np.median(frequency[present]) / frequency[present]
    return weights


MAX_WEIGHT = 10.0
"""Without a limit a class of a few pixels would dominate the loss."""


def root_median_frequency(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the square roots of `median_frequency`, clipped to 1 / MAX_WEIGHT..MAX_WEIGHT.

    The plain weights overshoot if one class has nearly all pixels: on the demo scenes, with one
    rare class against everything else, they gave a lower recall of that class than no weights at
    all, and their square roots a higher one.
    """
    return np.clip(np.sqrt(median_frequency(counts)), 1 / MAX_WEIGHT, MAX_WEIGHT)
