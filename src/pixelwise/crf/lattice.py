"""Gaussian filtering in any dimension, in time linear in the points: the permutohedral lattice.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010.
Values are splatted onto the vertices of the simplices that enclose the points, blurred along the
lattice's d+1 axes, and sliced back to the points. The lattice depends on the points only: it is
built once and filters any number of values, all classes in one pass.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import kernels
from pixelwise.crf.simd import LANES
from pixelwise.errors import InputError
from pixelwise.ops.threads import Threads

Floats = NDArray[np.float32]

_MIN_STRIP = 16384  # pixels; shorter strips would share most of their vertices
_MAX_STRIPS = 64
_KEY_BITS = 62


class Lattice:
    """The permutohedral lattice around N points in d dimensions.

    Args:
        features: Positions (d, N) of the points, float32, divided by the Gaussian's std.
        normalized: Whether to divide by the square root of the filtered constant 1 before and
            after filtering, which keeps the kernel symmetric. This is pydensecrf's
            NORMALIZE_SYMMETRIC, its default.
        threads: Threads for building and filtering; None runs in the caller's thread only.

    Raises:
        InputError: If the features span more lattice cells than can be numbered, as with a std of
            a hundredth of a pixel.
    """

    def __init__(
        self, features: Floats, *, normalized: bool = True, threads: Threads | None = None
    ) -> None:
        dimensions, count = features.shape
        self.threads = threads or Threads(1)
        self.vertices = vertices = dimensions + 1
        # Scaled so that splatting, blurring and slicing together have the variance of the Gaussian
        # (section 3.1). They multiply all values by a constant, which `scale` divides out.
        std = float(np.float32(math.sqrt(2 / 3) * vertices))
        steps = [std / math.sqrt((j + 1) * (j + 2)) for j in range(dimensions)]
        self.scale = np.float32(1 / (1 + 2.0**-dimensions))
        axes = np.array(steps, dtype=np.float32)
        strides, origin = _key_packing(features, axes)
        self.bounds = bounds = _strip_bounds(count)
        self.strips = strips = len(bounds) - 1
        self.rows = rows = np.empty(count * vertices, np.int32)
        self.weights = np.empty(count * vertices, np.float32)
        keys, counts = np.empty(count * vertices, np.int64), np.empty(strips, np.int64)
        simplices = (bounds, features, axes, strides, origin, rows, self.weights, keys, counts)
        self.threads.run(kernels.build_simplices, strips, *simplices)
        merged = kernels.merge_strips(bounds, vertices, keys, counts)
        point_of_row, point_keys, table, self.starts, self.order = merged
        self.row_starts = np.concatenate([[0], np.cumsum(counts)])
        self.size = len(point_keys)
        self.points = np.empty_like(rows)
        numbering = (bounds, self.row_starts, vertices, point_of_row, rows, self.points)
        self.threads.run(kernels.number_rows, strips, *numbering)
        self.neighbors = np.full((vertices, 2, self.size), self.size, np.int32)
        connecting = (point_keys, table, strides, int(strides.sum()), self.neighbors)
        self.threads.run(kernels.find_neighbors, self.size, *connecting)
        if normalized:
            weight = self.filter(np.ones((count, 1), np.float32))
            norm = 1 / np.sqrt(weight + np.float32(1e-20))
            self.weights = (self.weights.reshape(count, vertices) * norm).reshape(-1)

    def buffers(self, width: int) -> tuple[Floats, Floats, Floats]:
        """Allocate rows of `width`: the strips' sums, and two arrays of zeros for the points."""
        length = (self.size + 1) * width
        sums = np.empty(len(self.order) * width, np.float32)
        return sums, np.zeros(length, np.float32), np.zeros(length, np.float32)

    def arrays(self, values: Floats, sums: Floats, weight: float = 1) -> kernels.Filter:
        """Return the arrays for the kernels, which multiply what they slice by `weight`."""
        scale = np.float32(weight * self.scale)
        layout = (self.row_starts, self.rows, self.points, self.weights)
        return kernels.Filter(*layout, scale, values, sums)

    def blur(self, width: int, sums: Floats, values: Floats, spare: Floats) -> Floats:
        """Blur what was splatted. Returns `values` or `spare`, whichever holds the result."""
        summing = (self.starts, self.order, width, sums, values)
        self.threads.run(kernels.sum_strip_rows, self.size, *summing)
        for axis in range(self.vertices):
            self.threads.run(kernels.blur, self.size, axis, self.neighbors, width, values, spare)
            values, spare = spare, values
        return values

    def filter(self, values: Floats) -> Floats:
        """Filter each column of an array (N, C) float32."""
        count, columns = values.shape
        width = padded_width(columns)
        source = np.zeros(count * width, np.float32)
        source.reshape(count, width)[:, :columns] = values
        sums, *points = self.buffers(width)
        splatting = (self.bounds, width, self.vertices, source, self.arrays(points[0], sums))
        self.threads.run(kernels.splat, self.strips, *splatting)
        blurred = self.blur(width, sums, *points)
        out = np.zeros_like(source)
        slicing = (width, self.vertices, out, self.arrays(blurred, sums))
        self.threads.run(kernels.slice_, count, *slicing)
        return out.reshape(count, width)[:, :columns]


def padded_width(columns: int) -> int:
    """Round up to whole SIMD vectors."""
    return -(-columns // LANES) * LANES


def _strip_bounds(count: int) -> NDArray[np.int64]:
    """Return where each strip of `count` pixels begins, and the end.

    The number of strips is a power of two, which two, four or eight cores can divide evenly. It
    does not depend on the number of cores, so that all machines sum in the same order.
    """
    strips = 1
    while 2 * strips <= min(count // _MIN_STRIP, _MAX_STRIPS):
        strips *= 2
    return np.linspace(0, count, strips + 1).astype(np.int64)


def _key_packing(features: Floats, axes: Floats) -> tuple[NDArray[np.int64], int]:
    """Return the strides (d + 1, the last 0) and origin that pack coordinates into one integer.

    Every vertex of a point's simplex is within d+1 of the point in each coordinate, and so is a
    neighbor of the vertex from the vertex. The packing leaves a margin of three times that, so that
    keys are unique.
    """
    dimensions = len(axes)
    vertices = dimensions + 1
    low = features.min(axis=1).astype(np.float64) * axes
    high = features.max(axis=1).astype(np.float64) * axes
    strides, origin, stride = [], 0, 1
    for j in range(dimensions):
        least, most = low[j:].sum(), high[j:].sum()
        if j:
            least, most = least - j * high[j - 1], most - j * low[j - 1]
        first = math.floor(least) - 3 * vertices
        strides.append(stride)
        origin -= first * stride
        stride *= math.ceil(most) + 3 * vertices - first + 1
    if stride >= 1 << _KEY_BITS:
        raise InputError("the stds of the CRF are too small for this image size: use larger ones")
    return np.array([*strides, 0], dtype=np.int64), origin
