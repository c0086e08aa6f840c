"""Convert images (H, W, C) to layers that Pillow can resize and rotate, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pixelwise.data.pixel_format import Pixels


def to_layers(image: Pixels) -> list[Image.Image]:
    """Split an image into layers that Pillow can resize: 8-bit RGB together, others singly."""
    colors = 3 if image.dtype == np.uint8 and image.shape[2] >= 3 else 0
    first = [np.ascontiguousarray(image[..., :3])] if colors else []
    others = (np.ascontiguousarray(image[..., c]) for c in range(colors, image.shape[2]))
    return [Image.fromarray(layer) for layer in (*first, *others)]


def from_layers(layers: Sequence[Image.Image]) -> Pixels:
    """Invert `to_layers`."""
    arrays = [np.asarray(layer) for layer in layers]
    pixels: Pixels = np.dstack(arrays) if len(arrays) > 1 else np.atleast_3d(arrays[0])
    return pixels
