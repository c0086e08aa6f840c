"""Rotate a crop about its center."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.image_layers import from_layers, to_layers
from pixelwise.data.pixel_format import Pixels


def rotated_extent(size: tuple[int, int], angle: float) -> tuple[int, int]:
    """Return the smallest (height, width) that contains a rotated rectangle of a size.

    Args:
        size: (height, width) of the rectangle.
        angle: Angle in radians.
    """
    height, width = size
    sine, cosine = abs(math.sin(angle)), abs(math.cos(angle))
    return math.ceil(height * cosine + width * sine), math.ceil(width * cosine + height * sine)


def rotate(
    image: Pixels, mask: NDArray[np.uint8], size: tuple[int, int], angle: float
) -> tuple[Pixels, NDArray[np.uint8]]:
    """Cut a rotated rectangle from the center of an image and its mask.

    Args:
        image: (H, W, C), of at least `rotated_extent(size, angle)`.
        mask: (H, W) class indices.
        size: (height, width) of the result.
        angle: Angle in radians by which the content turns counterclockwise.

    Returns:
        The image, interpolated bilinearly, and the mask, by nearest neighbor.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    down, right = size[0] / 2, size[1] / 2
    middle_down, middle_right = mask.shape[0] / 2, mask.shape[1] / 2
    # The position in the input as a linear function of that in the output, as Pillow takes it.
    lines = (
        *(cosine, -sine, middle_right - cosine * right + sine * down),
        *(sine, cosine, middle_down - sine * right - cosine * down),
    )
    shape, affine = (size[1], size[0]), Image.Transform.AFFINE
    layers = [
        layer.transform(shape, affine, lines, Image.Resampling.BILINEAR)
        for layer in to_layers(image)
    ]
    labels = Image.fromarray(mask).transform(shape, affine, lines, Image.Resampling.NEAREST)
    return from_layers(layers), np.asarray(labels)
