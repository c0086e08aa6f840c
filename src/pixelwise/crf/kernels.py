"""What runs compiled: building the permutohedral lattice, filtering on it, mean field's update.

Rows of class values have `width` floats, the classes filled up to a multiple of LANES, and lie one
after the other in arrays of one dimension: row n begins at n * width.

The pixels are cut into strips. A strip adds into rows of its own, so that no two cores write one
place and the result depends neither on how many they are nor on which is faster; `gather` then adds
up the strips' rows of each lattice point.

Most functions do the part [begin, end) of their work, of strips, pixels or lattice points, so that
`compiled.threads.Threads` can divide it. numba's own threads are not used: parallel functions take
twice as long to compile, and its pools spin while they wait and do not outlive a fork.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pixelwise.crf.vectors import (
    LANES,
    add8,
    at,
    exp8,
    fused8,
    highest8,
    load8,
    log8,
    max8,
    min8,
    spread8,
    store8,
    sum8,
    zero8,
)
from pixelwise.ops.jit import inner, outer

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

CLIP = 1e-5
"""Smaller probabilities count as this, as in pydensecrf's `unary_from_softmax`."""

_POSITION_CORNERS = 3  # of a simplex in 2 dimensions: x, y
_BILATERAL_CORNERS = 6  # in 5 dimensions: x, y, red, green, blue
_NOTHING = np.float32(-1e30)  # the logit of a class that only fills up a row
_HALF = np.float32(0.5)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing
_TILE = 64  # pixels transposed at a time, so that both sides stay in the cache

# Building. A vertex of the lattice is d+1 integers of which d are independent; `strides` packs
# them into one integer, so that a step on the lattice is an addition.


@inner
def _simplex(
    features: Floats,
    i: int,
    scale: Floats,
    elevated: Floats,
    nearest: Floats,
    rank: Longs,
    barycentric: Floats,
) -> None:
    """The simplex around point i: its vertex of remainder 0, order of coordinates, weights.

    Adams, Baek and Davis 2010, sections 3.1 and 3.2. Everything is float32 in pydensecrf's order
    of operations: where two coordinates tie, as at the image's border, the same vertices come out.
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
            less = np.int64(here < elevated[k] - nearest[k])  # no branch: nothing foretells it
            rank[j] += less
            rank[k] += 1 - less
    for j in range(d + 1):  # off the plane by `excess` steps: back along the largest remainders
        if rank[j] < 0:
            rank[j] += d + 1
            nearest[j] += up
        elif rank[j] > d:
            rank[j] -= d + 1
            nearest[j] -= up
    barycentric[:] = np.float32(0)
    for j in range(d + 1):
        part = (elevated[j] - nearest[j]) * down
        barycentric[d - rank[j]] += part
        barycentric[d + 1 - rank[j]] -= part
    barycentric[0] += np.float32(1) + barycentric[d + 1]


@inner
def _find(table: Ints, keys: Longs, key: int, shift: np.uint64) -> Any:
    """The slot of `key`, or the empty one where it belongs: table[slot] is its index, or -1."""
    mask = len(table) - 1
    slot = np.int64((np.uint64(key) * _GOLDEN) >> shift)
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@njit
def _table(keys: Longs, count: int, bits: int) -> Ints:
    """A hash table of 2^bits slots that holds the first `count` keys."""
    table = np.full(1 << bits, -1, np.int32)
    shift = np.uint64(64 - bits)
    for n in range(count):
        table[_find(table, keys, keys[n], shift)] = n
    return table


@outer
def place(
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
    """Find the simplices of strips' points, (d, N), and number each strip's vertices from 0.

    Writes rows and weights (N * (d + 1)), how many vertices each strip has, and their keys, those
    of strip k from bounds[k] * (d + 1) on. The last of `strides` (d + 1) is 0: that coordinate
    follows from the others.
    """
    corners = len(scale) + 1
    elevated = np.empty(corners, np.float32)
    nearest = np.empty(corners, np.float32)
    barycentric = np.empty(corners + 1, np.float32)
    rank = np.empty(corners, np.int64)
    axis = np.empty(corners, np.int64)
    step = strides.sum()
    for strip in range(begin, end):
        own = keys[bounds[strip] * corners : bounds[strip + 1] * corners]
        bits = 12
        shift = np.uint64(64 - bits)
        table = _table(own, 0, bits)
        count = 0
        for i in range(bounds[strip], bounds[strip + 1]):
            _simplex(features, i, scale, elevated, nearest, rank, barycentric)
            key = np.int64(origin)
            for j in range(corners):
                key += np.int64(nearest[j]) * strides[j]
                axis[rank[j]] = j
            for corner in range(corners):
                if corner:  # one step along all axes, and back along one
                    key += step - corners * strides[axis[corners - corner]]
                slot = _find(table, own, key, shift)
                index = np.int64(table[slot])
                if index < 0:
                    index = np.int64(count)
                    own[count] = key
                    table[slot] = count
                    count += 1
                    if 2 * count > len(table):
                        bits += 2
                        shift = np.uint64(64 - bits)
                        table = _table(own, count, bits)
                rows[i * corners + corner] = index
                weights[i * corners + corner] = barycentric[corner]
        counts[strip] = count


@outer
def merge(bounds: Longs, corners: int, keys: Longs, counts: Longs) -> Any:
    """Number the vertices of all strips together, M lattice points.

    Returns the point of each strip's row; the points' keys (M) and hash table; and for each point
    the strips' rows that make it up: order[starts[n] : starts[n + 1]].
    """
    rows = counts.sum()
    bits = 4
    while (1 << bits) < 2 * rows:
        bits += 1
    shift = np.uint64(64 - bits)
    table = np.full(1 << bits, -1, np.int32)
    found = np.empty(rows, np.int64)
    point_of = np.empty(rows, np.int32)
    points = 0
    row = 0
    for k in range(len(counts)):
        first = bounds[k] * corners
        for n in range(first, first + counts[k]):
            slot = _find(table, found, keys[n], shift)
            if table[slot] < 0:
                found[points] = keys[n]
                table[slot] = points
                points += 1
            point_of[row] = table[slot]
            row += 1
    starts = np.zeros(points + 1, np.int64)
    for n in point_of:
        starts[n + 1] += 1
    for n in range(points):
        starts[n + 1] += starts[n]
    free = starts[:-1].copy()
    order = np.empty(rows, np.int32)
    for row in range(rows):
        n = point_of[row]
        order[free[n]] = row
        free[n] += 1
    return point_of, found[:points].copy(), table, starts, order


@outer
def number(
    begin: int,
    end: int,
    bounds: Longs,
    row_starts: Longs,
    corners: int,
    point_of: Ints,
    rows: Ints,
    points: Ints,
) -> None:
    """Number rows through all strips, and look up their points."""
    for strip in range(begin, end):
        for n in range(bounds[strip] * corners, bounds[strip + 1] * corners):
            rows[n] += row_starts[strip]
            points[n] = point_of[rows[n]]


@outer
def connect(
    begin: int, end: int, keys: Longs, table: Ints, strides: Longs, step: int, neighbors: Ints
) -> None:
    """Find lattice points' neighbors, (d + 1, 2, M), those not in the lattice preset to M.

    step: the sum of `strides`, one step along all axes.
    """
    corners = len(strides)
    bits = 0
    while (1 << bits) < len(table):
        bits += 1
    shift = np.uint64(64 - bits)
    for n in range(begin, end):
        for j in range(corners):
            other = table[_find(table, keys, keys[n] + corners * strides[j] - step, shift)]
            if other >= 0:
                neighbors[j, 0, n] = other
                neighbors[j, 1, other] = n  # no other n has this neighbor: nobody else writes it


# Filtering.


@inner
def _splat(
    row: Floats,
    start: int,
    width: int,
    corners: int,
    k: int,
    rows: Ints,
    weights: Floats,
    sums: Floats,
) -> None:
    """Add one pixel's values onto the vertices of its simplex; k is pixel * corners."""
    for corner in range(corners):
        base = np.int64(at(rows, k + corner)) * width
        weight = at(weights, k + corner)
        for c in range(0, width, LANES):
            store8(sums, base + c, fused8(weight, load8(row, start + c), load8(sums, base + c)))


@inner
def _slice(
    row: Floats,
    start: int,
    width: int,
    corners: int,
    k: int,
    points: Ints,
    weights: Floats,
    scale: np.float32,
    values: Floats,
) -> None:
    """Add to one pixel's values, scaled, what the vertices of its simplex hold.

    Three vectors at a time: for 24 classes the numbers and weights of vertices are loaded once.
    """
    c = 0
    while c + 3 * LANES <= width:
        total, second, third = zero8(), zero8(), zero8()
        for corner in range(corners):
            base = np.int64(at(points, k + corner)) * width + c
            weight = at(weights, k + corner)
            total = fused8(weight, load8(values, base), total)
            second = fused8(weight, load8(values, base + LANES), second)
            third = fused8(weight, load8(values, base + 2 * LANES), third)
        place = start + c
        store8(row, place, fused8(scale, total, load8(row, place)))
        store8(row, place + LANES, fused8(scale, second, load8(row, place + LANES)))
        store8(row, place + 2 * LANES, fused8(scale, third, load8(row, place + 2 * LANES)))
        c += 3 * LANES
    while c < width:
        total = zero8()
        for corner in range(corners):
            base = np.int64(at(points, k + corner)) * width + c
            total = fused8(at(weights, k + corner), load8(values, base), total)
        store8(row, start + c, fused8(scale, total, load8(row, start + c)))
        c += LANES


@inner
def _clear(sums: Floats, begin: int, end: int) -> None:
    for k in range(begin, end):
        sums[k] = np.float32(0)


@outer
def splat(
    begin: int,
    end: int,
    bounds: Longs,
    row_starts: Longs,
    width: int,
    corners: int,
    rows: Ints,
    weights: Floats,
    source: Floats,
    sums: Floats,
) -> None:
    """Splat strips' pixels of `source` into the strips' rows of `sums`."""
    _clear(sums, row_starts[begin] * width, row_starts[end] * width)
    for i in range(bounds[begin], bounds[end]):
        _splat(source, i * width, width, corners, i * corners, rows, weights, sums)


@outer
def gather(
    begin: int, end: int, starts: Longs, order: Ints, width: int, sums: Floats, values: Floats
) -> None:
    """Add up the strips' rows of each lattice point."""
    for n in range(begin, end):
        for c in range(0, width, LANES):
            total = zero8()
            for k in range(starts[n], starts[n + 1]):
                total = add8(total, load8(sums, np.int64(order[k]) * width + c))
            store8(values, n * width + c, total)


@outer
def blur(
    begin: int, end: int, axis: int, neighbors: Ints, width: int, values: Floats, out: Floats
) -> None:
    """Blur lattice points along one axis.

    `values` has M + 1 rows, the last of them zeros: what stands for a neighbor that is not there.
    """
    for n in range(begin, end):
        one = np.int64(neighbors[axis, 0, n]) * width
        other = np.int64(neighbors[axis, 1, n]) * width
        for c in range(0, width, LANES):
            both = add8(load8(values, one + c), load8(values, other + c))
            store8(out, n * width + c, fused8(_HALF, both, load8(values, n * width + c)))


@outer
def slice_(
    begin: int,
    end: int,
    width: int,
    corners: int,
    points: Ints,
    weights: Floats,
    scale: np.float32,
    values: Floats,
    out: Floats,
) -> None:
    """Add to pixels of `out`, scaled, the lattice's values."""
    for i in range(begin, end):
        _slice(out, i * width, width, corners, i * corners, points, weights, scale, values)


# Mean field.


@inner
def _softmax(row: Floats, width: int) -> None:
    """The softmax of one row, in place."""
    largest = load8(row, 0)
    for c in range(LANES, width, LANES):
        largest = max8(largest, load8(row, c))
    highest = highest8(largest)
    total = zero8()
    for c in range(0, width, LANES):
        power = exp8(load8(row, c), highest)
        total = add8(total, power)
        store8(row, c, power)
    factor = np.float32(1) / sum8(total)
    for c in range(0, width, LANES):
        store8(row, c, fused8(factor, load8(row, c), zero8()))


@outer
def update(
    begin: int,
    end: int,
    bounds: Longs,
    width: int,
    logits: Floats,
    messages: bool,
    final: bool,
    bilateral_starts: Longs,
    bilateral_rows: Ints,
    bilateral_points: Ints,
    bilateral_weights: Floats,
    bilateral_scale: np.float32,
    bilateral_values: Floats,
    bilateral_sums: Floats,
    position_starts: Longs,
    position_rows: Ints,
    position_points: Ints,
    position_weights: Floats,
    position_scale: np.float32,
    position_values: Floats,
    position_sums: Floats,
) -> None:
    """One pass over strips' pixels: slice both kernels, softmax, splat for the next iteration.

    A pixel's probabilities stay in the innermost cache on this way and are not written to memory
    but by the `final` pass, which puts them in the place of its logits. Without `messages` (the
    first pass) the probabilities are the softmax of the logits alone.
    """
    if not final:
        _clear(bilateral_sums, bilateral_starts[begin] * width, bilateral_starts[end] * width)
        _clear(position_sums, position_starts[begin] * width, position_starts[end] * width)
    row = np.empty(width, np.float32)
    for i in range(bounds[begin], bounds[end]):
        b, p = i * _BILATERAL_CORNERS, i * _POSITION_CORNERS
        for c in range(0, width, LANES):
            store8(row, c, load8(logits, i * width + c))
        if messages:
            _slice(
                row,
                0,
                width,
                _BILATERAL_CORNERS,
                b,
                bilateral_points,
                bilateral_weights,
                bilateral_scale,
                bilateral_values,
            )
            _slice(
                row,
                0,
                width,
                _POSITION_CORNERS,
                p,
                position_points,
                position_weights,
                position_scale,
                position_values,
            )
        _softmax(row, width)
        if final:
            for c in range(0, width, LANES):
                store8(logits, i * width + c, load8(row, c))
        else:
            _splat(
                row,
                0,
                width,
                _BILATERAL_CORNERS,
                b,
                bilateral_rows,
                bilateral_weights,
                bilateral_sums,
            )
            _splat(
                row,
                0,
                width,
                _POSITION_CORNERS,
                p,
                position_rows,
                position_weights,
                position_sums,
            )


@outer
def logits_from(begin: int, end: int, probabilities: Floats, width: int, logits: Floats) -> None:
    """Logarithms of the clipped probabilities, (C, N) to rows of `width`, for some pixels."""
    classes = len(probabilities)
    least, one = spread8(np.float32(CLIP)), spread8(np.float32(1))
    for tile in range(begin, end, _TILE):
        last = min(tile + _TILE, end)
        for c in range(classes):
            for i in range(tile, last):
                logits[i * width + c] = probabilities[c, i]
        for i in range(tile, last):
            for c in range(i * width, (i + 1) * width, LANES):
                store8(logits, c, log8(min8(max8(load8(logits, c), least), one)))
            for c in range(i * width + classes, (i + 1) * width):
                logits[c] = _NOTHING


@outer
def classes_first(begin: int, end: int, rows: Floats, width: int, out: Floats) -> None:
    """Rows of `width` to (C, N), for some pixels."""
    for tile in range(begin, end, _TILE):
        last = min(tile + _TILE, end)
        for c in range(len(out)):
            for i in range(tile, last):
                out[c, i] = rows[i * width + c]
