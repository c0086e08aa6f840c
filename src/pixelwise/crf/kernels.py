"""Compiled kernels: building the permutohedral lattice, filtering on it, the mean field update.

Class values are stored in rows of `width` floats: the number of classes, padded to a multiple of
LANES. Rows follow each other in one-dimensional arrays: row n begins at n * width.

The pixels are divided into strips. Each strip splats into its own rows, one per vertex, so that
no two threads write to the same place and the result does not depend on their number or speed;
`sum_strip_rows` then adds up the strips' rows of each lattice point.

Most functions process a range [begin, end) of strips, pixels or lattice points, so that
`ops.threads.Threads` can divide the work. numba's own threads are not used: parallel functions take
twice as long to compile, and numba's thread pools busy-wait and do not survive a fork.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pixelwise.crf.simd import (
    LANES,
    add8,
    at,
    broadcast8,
    exp8,
    fused8,
    load8,
    log8,
    max8,
    min8,
    reduce_max8,
    reduce_sum8,
    store8,
    zero8,
)
from pixelwise.ops.jit import compiled, inlined

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

CLIP = 1e-5
"""Lower bound of probabilities, as in pydensecrf's `unary_from_softmax`."""

_POSITION_VERTICES = 3  # of a simplex in 2 dimensions: x, y
_BILATERAL_VERTICES = 6  # of a simplex in 5 dimensions: x, y, red, green, blue
_PADDING_LOGIT = np.float32(-1e30)  # of the classes that pad a row
_HALF = np.float32(0.5)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, for Fibonacci hashing
_BLOCK = 64  # pixels transposed at a time, so that source and destination fit in the cache

# Building the lattice. A lattice point has d+1 integer coordinates, d of which are independent.
# `strides` packs them into one integer key, so that a step on the lattice is an addition.


@inlined
def _find_simplex(
    features: Floats,
    i: int,
    scale: Floats,
    elevated: Floats,
    nearest: Floats,
    rank: Longs,
    barycentric: Floats,
) -> None:
    """Find the simplex around point i: its remainder-0 vertex, coordinate ranks and weights.

    Adams, Baek and Davis 2010, sections 3.1 and 3.2. All arithmetic is float32 in pydensecrf's
    order of operations, so that ties between coordinates, as at the image's border, select the
    same vertices.
    """
    d = len(scale)
    up = np.float32(d + 1)
    down = np.float32(1) / up
    total = np.float32(0)
    for j in range(d, 0, -1):
        scaled = features[j - 1, i] * scale[j - 1]
        elevated[j] = total - np.float32(j) * scaled
        total += scaled
    elevated[0] = total
    excess = np.int64(0)
    for j in range(d + 1):
        rounded = np.rint(elevated[j] * down)
        nearest[j] = rounded * up
        excess += np.int64(rounded)
    for j in range(d + 1):
        rank[j] = excess
    for j in range(d):
        here = elevated[j] - nearest[j]
        for k in range(j + 1, d + 1):
            less = np.int64(here < elevated[k] - nearest[k])  # a branch would be unpredictable
            rank[j] += less
            rank[k] += 1 - less
    for j in range(d + 1):  # `excess` steps off the plane: go back along the largest remainders
        if rank[j] < 0:
            rank[j] += d + 1
            nearest[j] += up
        elif rank[j] > d:
            rank[j] -= d + 1
            nearest[j] -= up
    barycentric[:] = np.float32(0)
    for j in range(d + 1):
        fraction = (elevated[j] - nearest[j]) * down
        barycentric[d - rank[j]] += fraction
        barycentric[d + 1 - rank[j]] -= fraction
    barycentric[0] += np.float32(1) + barycentric[d + 1]


@inlined
def _find_slot(table: Ints, keys: Longs, key: int, shift: np.uint64) -> Any:
    """Return the slot of `key` or the empty slot to insert it: table[slot] is its index or -1."""
    mask = len(table) - 1
    slot = np.int64((np.uint64(key) * _GOLDEN) >> shift)
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@njit
def _hash_table(keys: Longs, count: int, bits: int) -> Ints:
    """Return a hash table of 2^bits slots with the first `count` keys."""
    table = np.full(1 << bits, -1, np.int32)
    shift = np.uint64(64 - bits)
    for n in range(count):
        table[_find_slot(table, keys, keys[n], shift)] = n
    return table


@compiled
def build_simplices(
    begin: int,
    end: int,
    bounds: Longs,
    features: Floats,
    scale: Floats,
    strides: Longs,
    origin: int,
    rows: Ints,
    weights: Floats,
    keys: Longs,
    counts: Longs,
) -> None:
    """Find the simplices around the points (d, N) of strips and number each strip's vertices.

    Writes `rows` and `weights` (N * (d + 1)), the number of vertices of each strip to `counts`, and
    the vertices' keys to `keys`, those of strip k from bounds[k] * (d + 1) on. The last of the d+1
    `strides` is 0, since that coordinate follows from the others.
    """
    vertices = len(scale) + 1
    elevated = np.empty(vertices, np.float32)
    nearest = np.empty(vertices, np.float32)
    barycentric = np.empty(vertices + 1, np.float32)
    rank = np.empty(vertices, np.int64)
    axis = np.empty(vertices, np.int64)
    step = strides.sum()
    for strip in range(begin, end):
        own_keys = keys[bounds[strip] * vertices : bounds[strip + 1] * vertices]
        bits = 12
        shift = np.uint64(64 - bits)
        table = _hash_table(own_keys, 0, bits)
        count = 0
        for i in range(bounds[strip], bounds[strip + 1]):
            _find_simplex(features, i, scale, elevated, nearest, rank, barycentric)
            key = np.int64(origin)
            for j in range(vertices):
                key += np.int64(nearest[j]) * strides[j]
                axis[rank[j]] = j
            for vertex in range(vertices):
                if vertex:  # one step along all axes, and d + 1 steps back along one
                    key += step - vertices * strides[axis[vertices - vertex]]
                slot = _find_slot(table, own_keys, key, shift)
                index = np.int64(table[slot])
                if index < 0:
                    index = np.int64(count)
                    own_keys[count] = key
                    table[slot] = count
                    count += 1
                    if 2 * count > len(table):
                        bits += 2
                        shift = np.uint64(64 - bits)
                        table = _hash_table(own_keys, count, bits)
                rows[i * vertices + vertex] = index
                weights[i * vertices + vertex] = barycentric[vertex]
        counts[strip] = count


@compiled
def merge_strips(bounds: Longs, vertices: int, keys: Longs, counts: Longs) -> Any:
    """Merge the vertices of all strips into M lattice points.

    Returns the point of each strip row; the points' keys (M) and hash table; and for each point n
    its strip rows: order[starts[n] : starts[n + 1]].
    """
    rows = counts.sum()
    bits = 4
    while (1 << bits) < 2 * rows:
        bits += 1
    shift = np.uint64(64 - bits)
    table = np.full(1 << bits, -1, np.int32)
    point_keys = np.empty(rows, np.int64)
    point_of_row = np.empty(rows, np.int32)
    points = 0
    row = 0
    for k in range(len(counts)):
        first = bounds[k] * vertices
        for n in range(first, first + counts[k]):
            slot = _find_slot(table, point_keys, keys[n], shift)
            if table[slot] < 0:
                point_keys[points] = keys[n]
                table[slot] = points
                points += 1
            point_of_row[row] = table[slot]
            row += 1
    starts = np.zeros(points + 1, np.int64)
    for n in point_of_row:
        starts[n + 1] += 1
    for n in range(points):
        starts[n + 1] += starts[n]
    free = starts[:-1].copy()
    order = np.empty(rows, np.int32)
    for row in range(rows):
        n = point_of_row[row]
        order[free[n]] = row
        free[n] += 1
    return point_of_row, point_keys[:points].copy(), table, starts, order


@compiled
def number_rows(
    begin: int,
    end: int,
    bounds: Longs,
    row_starts: Longs,
    vertices: int,
    point_of_row: Ints,
    rows: Ints,
    points: Ints,
) -> None:
    """Number rows consecutively over all strips and look up their lattice points."""
    for strip in range(begin, end):
        for n in range(bounds[strip] * vertices, bounds[strip + 1] * vertices):
            rows[n] += row_starts[strip]
            points[n] = point_of_row[rows[n]]


@compiled
def find_neighbors(
    begin: int, end: int, keys: Longs, table: Ints, strides: Longs, step: int, neighbors: Ints
) -> None:
    """Find the neighbors (d + 1, 2, M) of lattice points along each axis.

    `neighbors` is preset to M, which stands for a missing neighbor. `step` is the sum of `strides`,
    one step along all axes.
    """
    vertices = len(strides)
    bits = 0
    while (1 << bits) < len(table):
        bits += 1
    shift = np.uint64(64 - bits)
    for n in range(begin, end):
        for j in range(vertices):
            other = table[_find_slot(table, keys, keys[n] + vertices * strides[j] - step, shift)]
            if other >= 0:
                neighbors[j, 0, n] = other
                neighbors[j, 1, other] = n  # no race: only this n has this neighbor


# Filtering: splat, blur, slice.


class Filter(NamedTuple):
    """The arrays of a lattice with which pixels are splatted and sliced.

    Attributes:
        row_starts: First row of each strip.
        rows: Strip row of each pixel's vertices.
        points: Lattice point of each pixel's vertices.
        weights: Barycentric weight of each pixel's vertices.
        scale: Factor of the sliced values.
        values: Blurred values of the lattice points.
        sums: Splatted values of the strip rows.
    """

    row_starts: Longs
    rows: Ints
    points: Ints
    weights: Floats
    scale: np.float32
    values: Floats
    sums: Floats


@inlined
def _splat(row: Floats, start: int, width: int, vertices: int, i: int, f: Filter) -> None:
    """Splat the values of pixel i, which begin at row[start], onto its simplex's vertices."""
    rows, weights, sums = f.rows, f.weights, f.sums  # faster than in the loops
    for vertex in range(vertices):
        base = np.int64(at(rows, i * vertices + vertex)) * width
        weight = at(weights, i * vertices + vertex)
        for c in range(0, width, LANES):
            store8(sums, base + c, fused8(weight, load8(row, start + c), load8(sums, base + c)))


@inlined
def _slice(row: Floats, start: int, width: int, vertices: int, i: int, f: Filter) -> None:
    """Slice pixel i: add the scaled values at its simplex's vertices to its row.

    Three vectors are processed at a time: for 24 classes, the vertices' indices and weights are
    loaded once.
    """
    points, weights, scale, values = f.points, f.weights, f.scale, f.values
    c = 0
    while c + 3 * LANES <= width:
        total, second, third = zero8(), zero8(), zero8()
        for vertex in range(vertices):
            base = np.int64(at(points, i * vertices + vertex)) * width + c
            weight = at(weights, i * vertices + vertex)
            total = fused8(weight, load8(values, base), total)
            second = fused8(weight, load8(values, base + LANES), second)
            third = fused8(weight, load8(values, base + 2 * LANES), third)
        target = start + c
        store8(row, target, fused8(scale, total, load8(row, target)))
        store8(row, target + LANES, fused8(scale, second, load8(row, target + LANES)))
        store8(row, target + 2 * LANES, fused8(scale, third, load8(row, target + 2 * LANES)))
        c += 3 * LANES
    while c < width:
        total = zero8()
        for vertex in range(vertices):
            base = np.int64(at(points, i * vertices + vertex)) * width + c
            weight = at(weights, i * vertices + vertex)
            total = fused8(weight, load8(values, base), total)
        store8(row, start + c, fused8(scale, total, load8(row, start + c)))
        c += LANES


@inlined
def _clear(begin: int, end: int, width: int, f: Filter) -> None:
    """Set the sums of strips to 0."""
    for k in range(f.row_starts[begin] * width, f.row_starts[end] * width):
        f.sums[k] = np.float32(0)


@compiled
def splat(
    begin: int, end: int, bounds: Longs, width: int, vertices: int, source: Floats, f: Filter
) -> None:
    """Splat the pixels of strips from `source` into the strips' rows of sums."""
    _clear(begin, end, width, f)
    for i in range(bounds[begin], bounds[end]):
        _splat(source, i * width, width, vertices, i, f)


@compiled
def sum_strip_rows(
    begin: int, end: int, starts: Longs, order: Ints, width: int, sums: Floats, values: Floats
) -> None:
    """Sum the strip rows of each lattice point."""
    for n in range(begin, end):
        for c in range(0, width, LANES):
            total = zero8()
            for k in range(starts[n], starts[n + 1]):
                total = add8(total, load8(sums, np.int64(order[k]) * width + c))
            store8(values, n * width + c, total)


@compiled
def blur(
    begin: int, end: int, axis: int, neighbors: Ints, width: int, values: Floats, out: Floats
) -> None:
    """Blur lattice points along one axis.

    `values` has M + 1 rows; the last one is zero and stands for missing neighbors.
    """
    for n in range(begin, end):
        before = np.int64(neighbors[axis, 0, n]) * width
        after = np.int64(neighbors[axis, 1, n]) * width
        for c in range(0, width, LANES):
            both = add8(load8(values, before + c), load8(values, after + c))
            store8(out, n * width + c, fused8(_HALF, both, load8(values, n * width + c)))


@compiled
def slice_(begin: int, end: int, width: int, vertices: int, out: Floats, f: Filter) -> None:
    """Slice: add the scaled values of the lattice to the pixels of `out`."""
    for i in range(begin, end):
        _slice(out, i * width, width, vertices, i, f)


# Mean field.


@inlined
def _softmax(row: Floats, width: int) -> None:
    """Compute the softmax of one row, in place."""
    largest = load8(row, 0)
    for c in range(LANES, width, LANES):
        largest = max8(largest, load8(row, c))
    highest = reduce_max8(largest)
    total = zero8()
    for c in range(0, width, LANES):
        power = exp8(load8(row, c), highest)
        total = add8(total, power)
        store8(row, c, power)
    factor = np.float32(1) / reduce_sum8(total)
    for c in range(0, width, LANES):
        store8(row, c, fused8(factor, load8(row, c), zero8()))


@compiled
def update_probabilities(
    begin: int,
    end: int,
    bounds: Longs,
    width: int,
    logits: Floats,
    first: bool,
    final: bool,
    bilateral: Filter,
    position: Filter,
) -> None:
    """Slice both filters, compute the softmax and splat for the next iteration, in one pass.

    A pixel's probabilities stay in the innermost cache and are not written to memory, except by the
    `final` pass, which overwrites the logits with them. In the `first` pass the probabilities are
    the softmax of the logits alone.
    """
    if not final:
        for f in (bilateral, position):
            _clear(begin, end, width, f)
    row = np.empty(width, np.float32)
    for i in range(bounds[begin], bounds[end]):
        for c in range(0, width, LANES):
            store8(row, c, load8(logits, i * width + c))
        if not first:
            _slice(row, 0, width, _BILATERAL_VERTICES, i, bilateral)
            _slice(row, 0, width, _POSITION_VERTICES, i, position)
        _softmax(row, width)
        if final:
            for c in range(0, width, LANES):
                store8(logits, i * width + c, load8(row, c))
        else:
            _splat(row, 0, width, _BILATERAL_VERTICES, i, bilateral)
            _splat(row, 0, width, _POSITION_VERTICES, i, position)


@compiled
def log_probabilities(
    begin: int, end: int, probabilities: Floats, width: int, logits: Floats
) -> None:
    """Write the logarithms of clipped probabilities (C, N) to rows of `width`."""
    classes = len(probabilities)
    least, one = broadcast8(np.float32(CLIP)), broadcast8(np.float32(1))
    for block in range(begin, end, _BLOCK):
        last = min(block + _BLOCK, end)
        for c in range(classes):
            for i in range(block, last):
                logits[i * width + c] = probabilities[c, i]
        for i in range(block, last):
            for c in range(i * width, (i + 1) * width, LANES):
                store8(logits, c, log8(min8(max8(load8(logits, c), least), one)))
            for c in range(i * width + classes, (i + 1) * width):
                logits[c] = _PADDING_LOGIT


@compiled
def channels_first(begin: int, end: int, rows: Floats, width: int, out: Floats) -> None:
    """Convert rows of `width` to (C, N)."""
    for block in range(begin, end, _BLOCK):
        last = min(block + _BLOCK, end)
        for c in range(len(out)):
            for i in range(block, last):
                out[c, i] = rows[i * width + c]
