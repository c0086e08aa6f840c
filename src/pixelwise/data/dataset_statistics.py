"""What follows from the sizes and the pixels of a data set, for training and for its doctor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_CROP = 512
CROP_MULTIPLE = 32


def usual_crop(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(height, width): the median size of the images, at most 512 a side, in steps of 32."""
    height, width = (
        max(CROP_MULTIPLE, min(MAX_CROP, int(side)) // CROP_MULTIPLE * CROP_MULTIPLE)
        for side in np.median(np.array(sizes), axis=0)
    )
    return height, width


def median_frequency(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights of classes by median frequency (arXiv:1411.4734, section 6.1): median share / share.

    counts: (C,) pixels of each class. Classes that do not occur get weight 1: nothing is known.
    """
    share = counts / max(1, counts.sum())
    present = share > 0
    weights = np.ones(len(counts), dtype=np.float64)
    if present.any():
        weights[present] = np.median(share[present]) / share[present]
    return weights


MAX_WEIGHT = 10.0
"""A class of a few pixels would else be all that counts."""


def root_median_frequency(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The roots of `median_frequency`, at most MAX_WEIGHT and at least one over it.

    The plain weights overshoot where one class has nearly all pixels: on the demo's scenes, with
    one rare class against all else, they found less of that class than none, and their roots more.
    """
    return np.clip(np.sqrt(median_frequency(counts)), 1 / MAX_WEIGHT, MAX_WEIGHT)
