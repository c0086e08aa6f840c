"""Compiled kernels: batch normalization with its activation, and depthwise weight gradients.

Maps are one-dimensional arrays of rows with the channels of one or several positions, so that the
inner loops access memory in order. Sums are accumulated over blocks of BLOCK rows, and over the
blocks in double precision: they do not depend on the number of threads or their speed.

Each function processes the range [begin, end) of its blocks, for `ops.threads.Threads`.
Comparisons are written so that NaN passes through.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.ops.jit import compiled, inlined

BLOCK = 256
CHANNEL_BLOCK = 64
"""Channels of a depthwise convolution at a time: 25 rows of sums fit in the L1 cache."""

Floats = NDArray[np.float32]


@compiled
def moments(begin: int, end: int, x: Floats, shift: Floats, sums: Floats, squares: Floats) -> None:
    """Compute the sum and the sum of squares of x - shift over each block."""
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


@compiled
def normalize(
    begin: int, end: int, x: Floats, scale: Floats, offset: Floats, low: Any, high: Any, out: Floats
) -> None:
    """Compute x * scale + offset, clamped to low..high."""
    channels = len(scale)
    for row in range(begin * BLOCK, min(len(x) // channels, end * BLOCK)):
        values = x[row * channels : (row + 1) * channels]
        into = out[row * channels : (row + 1) * channels]
        for c in range(channels):
            value = values[c] * scale[c] + offset[c]
            value = low if value < low else value
            into[c] = high if value > high else value


@inlined
def _clamp_gradient(grad: Any, value: Any, low: Any, high: Any) -> Any:
    """Return the gradient before an activation that clamps `value` to low..high."""
    return np.float32(0) if (value <= low) | (value >= high) else grad


@compiled
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
    """Compute the sums of the gradient and of the gradient times x - mean over each block.

    The gradient is that before the activation.
    """
    channels = len(scale)
    rows = len(x) // channels
    total, product = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for block in range(begin, end):
        total[:] = 0
        product[:] = 0
        for row in range(block * BLOCK, min(rows, (block + 1) * BLOCK)):
            values = x[row * channels : (row + 1) * channels]
            gradients = gradient[row * channels : (row + 1) * channels]
            for c in range(channels):
                grad = _clamp_gradient(gradients[c], values[c] * scale[c] + offset[c], low, high)
                total[c] += grad
                product[c] += grad * (values[c] - mean[c])
        sums[block] = total
        products[block] = product


@compiled
def input_gradient(
    begin: int,
    end: int,
    x: Floats,
    gradient: Floats,
    scale: Floats,
    offset: Floats,
    low: Any,
    high: Any,
    mean: Floats,
    factor: Floats,
    constant: Floats,
    out: Floats,
) -> None:
    """Compute scale * gradient + factor * (x - mean) + constant.

    The gradient is that before the activation.
    """
    channels = len(scale)
    for row in range(begin * BLOCK, min(len(x) // channels, end * BLOCK)):
        values = x[row * channels : (row + 1) * channels]
        gradients = gradient[row * channels : (row + 1) * channels]
        into = out[row * channels : (row + 1) * channels]
        for c in range(channels):
            grad = _clamp_gradient(gradients[c], values[c] * scale[c] + offset[c], low, high)
            into[c] = scale[c] * grad + (values[c] - mean[c]) * factor[c] + constant[c]


@compiled
def depthwise_weight_gradient(
    begin: int, end: int, x: Floats, gradient: Floats, side: int, rate: int, out: Floats
) -> None:
    """Compute the gradient of dilated depthwise kernels at stride 1 that keep the map's size.

    The kernels are `side` x `side`, with an odd `side`. `x` and `gradient` are (images, height,
    width, channels), and `out` is (images, side * side, channels) with the gradient of each image.
    The items are blocks of channels, image by image.
    """
    height, width, channels = x.shape[1:]
    blocks = (channels + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK
    positions, middle = side * side, side // 2
    sums = np.empty((positions, CHANNEL_BLOCK), np.float32)
    for item in range(begin, end):
        image, first = item // blocks, item % blocks * CHANNEL_BLOCK
        count = min(CHANNEL_BLOCK, channels - first)
        sums[:] = 0
        for row in range(height):
            for position in range(positions):
                down = (position // side - middle) * rate
                across = (position % side - middle) * rate
                if row + down < 0 or row + down >= height:
                    continue
                total = sums[position]
                for column in range(max(0, -across), min(width, width - across)):
                    values = x[image, row + down, column + across, first : first + count]
                    gradients = gradient[image, row, column, first : first + count]
                    for c in range(count):
                        total[c] += values[c] * gradients[c]
        out[image, :, first : first + count] = sums[:, :count]
