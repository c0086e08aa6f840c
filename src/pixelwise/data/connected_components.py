"""Connected components of a mask, without a labeling library: runs of rows are merged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def objects(mask: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the value and the area in pixels of each 4-connected component of a mask (H, W).

    Each row is split into runs of equal values; runs of neighboring rows with a common column and
    the same value are merged. Merging takes the smaller of two labels until nothing changes, for
    all runs at once (Shiloach and Vishkin 1982: hooking and path halving).
    """
    height, width = mask.shape
    if mask.size == 0:
        return np.empty(0, dtype=np.uint8), np.empty(0, dtype=np.int64)
    starts = np.ones((height, width), dtype=bool)
    np.not_equal(mask[:, 1:], mask[:, :-1], out=starts[:, 1:])
    flat = np.flatnonzero(starts)
    values = mask.reshape(-1)[flat]
    lengths = np.diff(flat, append=mask.size)
    # Two runs touch where a run starts in either row; there both are looked up.
    number = np.cumsum(starts.reshape(-1), dtype=np.int32).reshape(height, width) - 1
    touching = (starts[1:] | starts[:-1]) & (mask[1:] == mask[:-1])
    upper, lower = number[:-1][touching], number[1:][touching]
    labels = np.arange(len(flat), dtype=np.int32)
    while True:
        one, other = labels[upper], labels[lower]
        differ = one != other
        if not differ.any():
            break
        upper, lower, one, other = upper[differ], lower[differ], one[differ], other[differ]
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while True:
            halved = labels[labels]
            if np.array_equal(halved, labels):
                break
            labels = halved
    areas = np.bincount(labels, weights=lengths).astype(np.int64)
    roots = np.flatnonzero(areas)
    return values[roots], areas[roots]
