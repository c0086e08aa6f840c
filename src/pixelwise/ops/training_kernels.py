"""What runs compiled: batch normalization with its activation, and depthwise kernels' gradients.

Maps are (rows, channels) with the channels side by side, a row a position of an image; arrays of
one dimension, so that the inner loops are over memory in order. Sums are taken over blocks of BLOCK
rows, and over the blocks in double precision: a sum depends neither on the number of threads nor on
which is faster.

Each function does the part [begin, end) of its blocks, for `compiled.threads.Threads`. Comparisons
are the way round that lets what is not a number through.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.ops.jit import inner, outer

BLOCK = 256
TILE = 64
"""Channels of a depthwise convolution at a time: nine rows of sums stay in the nearest cache."""

Floats = NDArray[np.float32]


@outer
def moments(begin: int, end: int, x: Floats, shift: Floats, sums: Floats, squares: Floats) -> None:
    """Of each block the sum and the sum of squares of what is left of x after `shift`."""
    channels = len(shift)
    rows = len(x) // channels
    total, square = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for block in range(begin, end):
        total[:] = 0
        square[:] = 0
        for row in range(block * BLOCK, min(rows, (block + 1) * BLOCK)):
            values = x[row * channels : (row + 1) * channels]
            for c in range(channels):
                value = values[c] - shift[c]
                total[c] += value
                square[c] += value * value
        sums[block] = total
        squares[block] = square


@outer
def normalize(
    begin: int,
    end: int,
    x: Floats,
    scale: Floats,
    offset: Floats,
    low: Any,
    high: Any,
    out: Floats,
) -> None:
    """x * scale + offset, held within low..high."""
    channels = len(scale)
    for row in range(begin * BLOCK, min(len(x) // channels, end * BLOCK)):
        values = x[row * channels : (row + 1) * channels]
        into = out[row * channels : (row + 1) * channels]
        for c in range(channels):
            value = values[c] * scale[c] + offset[c]
            value = low if value < low else value
            into[c] = high if value > high else value


@inner
def _let_through(slope: Any, value: Any, low: Any, high: Any) -> Any:
    """The gradient before an activation that holds `value` within low..high."""
    return np.float32(0) if (value <= low) | (value >= high) else slope


@outer
def gradient_moments(
    begin: int,
    end: int,
    x: Floats,
    gradient: Floats,
    scale: Floats,
    offset: Floats,
    low: Any,
    high: Any,
    mean: Floats,
    sums: Floats,
    products: Floats,
) -> None:
    """Of each block the sums of the gradient, and of it times x - mean, where the activation let
    it through."""
    channels = len(scale)
    rows = len(x) // channels
    total, product = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for block in range(begin, end):
        total[:] = 0
        product[:] = 0
        for row in range(block * BLOCK, min(rows, (block + 1) * BLOCK)):
            values = x[row * channels : (row + 1) * channels]
            slopes = gradient[row * channels : (row + 1) * channels]
            for c in range(channels):
                slope = _let_through(slopes[c], values[c] * scale[c] + offset[c], low, high)
                total[c] += slope
                product[c] += slope * (values[c] - mean[c])
        sums[block] = total
        products[block] = product


@outer
def gradient_of_x(
    begin: int,
    end: int,
    x: Floats,
    gradient: Floats,
    scale: Floats,
    offset: Floats,
    low: Any,
    high: Any,
    mean: Floats,
    by_x: Floats,
    constant: Floats,
    out: Floats,
) -> None:
    """scale * gradient + by_x * (x - mean) + constant, the gradient as the activation let it
    through."""
    channels = len(scale)
    for row in range(begin * BLOCK, min(len(x) // channels, end * BLOCK)):
        values = x[row * channels : (row + 1) * channels]
        slopes = gradient[row * channels : (row + 1) * channels]
        into = out[row * channels : (row + 1) * channels]
        for c in range(channels):
            slope = _let_through(slopes[c], values[c] * scale[c] + offset[c], low, high)
            into[c] = scale[c] * slope + (values[c] - mean[c]) * by_x[c] + constant[c]


@outer
def depthwise_gradient(
    begin: int,
    end: int,
    x: Floats,
    gradient: Floats,
    rate: int,
    out: Floats,
) -> None:
    """The gradient of depthwise 3x3 kernels at stride 1, padded by their rate.

    x, gradient: (images, height, width, channels). out: (images, 9, channels), of each image alone.
    The parts are tiles of channels of the images, one image after the other.
    """
    height, width, channels = x.shape[1:]
    tiles = (channels + TILE - 1) // TILE
    sums = np.empty((9, TILE), np.float32)
    for part in range(begin, end):
        image, first = part // tiles, part % tiles * TILE
        count = min(TILE, channels - first)
        sums[:] = 0
        for row in range(height):
            for tap in range(9):
                down, across = (tap // 3 - 1) * rate, (tap % 3 - 1) * rate
                if row + down < 0 or row + down >= height:
                    continue
                total = sums[tap]
                for column in range(max(0, -across), min(width, width - across)):
                    values = x[image, row + down, column + across, first : first + count]
                    slopes = gradient[image, row, column, first : first + count]
                    for c in range(count):
                        total[c] += values[c] * slopes[c]
        out[image, :, first : first + count] = sums[:, :count]
