"""A Gaussian filter in any dimension, in time linear in the points: the permutohedral lattice.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010.
Values are splatted onto the vertices of the simplices that hold the points, blurred along the
lattice's d+1 axes, and sliced back. The lattice depends on the points alone: it is built once and
filters any number of values, all classes in one pass.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import kernels
from pixelwise.crf.vectors import LANES
from pixelwise.errors import InputError
from pixelwise.ops.threads import Threads

Floats = NDArray[np.float32]

_MIN_STRIP = 16384  # pixels; shorter ones would hold much the same vertices over and over
_MAX_STRIPS = 64
_KEY_BITS = 62


class Lattice:
    """The lattice around N points of d dimensions.

    features: (d, N) float32, divided by the Gaussian's standard stds.
    normalized: divide by the square root of the filtered ones before and after filtering, which
        keeps the kernel symmetric; pydensecrf's NORMALIZE_SYMMETRIC, its default.
    threads: what building and filtering is shared among; the caller's thread alone if None.

    Raises InputError where the features spread over more lattice cells than can be numbered, as a
    standard std of a hundredth of a pixel makes them.
    """

    def __init__(
        self, features: Floats, *, normalized: bool = True, threads: Threads | None = None
    ) -> None:
        dimensions, count = features.shape
        self.threads = threads or Threads(1)
        self.corners = corners = dimensions + 1
        self.pixels = count
        # Scaled so that splatting, blurring and slicing together have the variance of the Gaussian
        # (section 3.1); what they multiply all values by is taken back in `scale`.
        std = float(np.float32(math.sqrt(2 / 3) * corners))
        steps = [std / math.sqrt((j + 1) * (j + 2)) for j in range(dimensions)]
        self.scale = np.float32(1 / (1 + 2.0**-dimensions))
        axes = np.array(steps, dtype=np.float32)
        strides, origin = _packing(features, axes)
        self.bounds = _strips(count)
        self.strips = strips = len(self.bounds) - 1
        self.rows = np.empty(count * corners, np.int32)
        self.weights = np.empty(count * corners, np.float32)
        keys = np.empty(count * corners, np.int64)
        counts = np.empty(strips, np.int64)
        self.threads.share(
            kernels.place,
            strips,
            self.bounds,
            features,
            axes,
            strides,
            origin,
            self.rows,
            self.weights,
            keys,
            counts,
        )
        point_of, point_keys, table, self.starts, self.order = kernels.merge(
            self.bounds, corners, keys, counts
        )
        self.row_starts = np.concatenate([[0], np.cumsum(counts)])
        self.size = len(point_keys)
        self.points = np.empty_like(self.rows)
        self.threads.share(
            kernels.number,
            strips,
            self.bounds,
            self.row_starts,
            corners,
            point_of,
            self.rows,
            self.points,
        )
        self.neighbors = np.full((corners, 2, self.size), self.size, np.int32)
        step = int(strides.sum())
        self.threads.share(
            kernels.connect, self.size, point_keys, table, strides, step, self.neighbors
        )
        if normalized:
            weight = self.filter(np.ones((count, 1), np.float32))
            norm = 1 / np.sqrt(weight + np.float32(1e-20))
            self.weights = (self.weights.reshape(count, corners) * norm).reshape(-1)

    def buffers(self, width: int) -> tuple[Floats, Floats, Floats]:
        """Memory for rows of `width`: the strips' sums, and twice zeros for the points."""
        point_rows = (self.size + 1) * width
        sums = np.empty(len(self.order) * width, np.float32)
        return sums, np.zeros(point_rows, np.float32), np.zeros(point_rows, np.float32)

    def blur(self, width: int, sums: Floats, values: Floats, spare: Floats) -> Floats:
        """The points' values from what was splatted; one of `values` and `spare`."""
        self.threads.share(kernels.gather, self.size, self.starts, self.order, width, sums, values)
        for axis in range(self.corners):
            self.threads.share(kernels.blur, self.size, axis, self.neighbors, width, values, spare)
            values, spare = spare, values
        return values

    def filter(self, values: Floats) -> Floats:
        """(N, C) float32 to the same, each column filtered."""
        count, columns = values.shape
        width = padded(columns)
        source = np.zeros(count * width, np.float32)
        source.reshape(count, width)[:, :columns] = values
        sums, one, other = self.buffers(width)
        self.threads.share(
            kernels.splat,
            self.strips,
            self.bounds,
            self.row_starts,
            width,
            self.corners,
            self.rows,
            self.weights,
            source,
            sums,
        )
        blurred = self.blur(width, sums, one, other)
        out = np.zeros_like(source)
        self.threads.share(
            kernels.slice_,
            count,
            width,
            self.corners,
            self.points,
            self.weights,
            self.scale,
            blurred,
            out,
        )
        return out.reshape(count, width)[:, :columns]


def padded(columns: int) -> int:
    """`columns` filled up to whole vectors."""
    return -(-columns // LANES) * LANES


def _strips(count: int) -> NDArray[np.int64]:
    """Where each strip of `count` pixels begins, and the end.

    A power of two, which two, four or eight cores share alike; and never by the number of cores,
    so that all machines add in the same order.
    """
    strips = 1
    while 2 * strips <= min(count // _MIN_STRIP, _MAX_STRIPS):
        strips *= 2
    return np.linspace(0, count, strips + 1).astype(np.int64)


def _packing(features: Floats, axes: Floats) -> tuple[NDArray[np.int64], int]:
    """Strides (d + 1, the last 0) and origin that pack a vertex's coordinates into one integer.

    Every vertex of a point's simplex is within d+1 of the point in each coordinate, and so is a
    neighbor of the vertex; three times that is kept free, so that no two keys are one.
    """
    dimensions = len(axes)
    corners = dimensions + 1
    low = features.min(axis=1).astype(np.float64) * axes
    high = features.max(axis=1).astype(np.float64) * axes
    strides, origin, stride = [], 0, 1
    for j in range(dimensions):
        least, most = low[j:].sum(), high[j:].sum()
        if j:
            least, most = least - j * high[j - 1], most - j * low[j - 1]
        first = math.floor(least) - 3 * corners
        strides.append(stride)
        origin -= first * stride
        stride *= math.ceil(most) + 3 * corners - first + 1
    if stride >= 1 << _KEY_BITS:
        raise InputError(
            "the CRF's standard stds are too small for an image of this size: use larger ones"
        )
    return np.array([*strides, 0], dtype=np.int64), origin
