"""Random changes of the pixel values of an image: color, blur, noise and JPEG artifacts."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from pixelwise.data.image_layers import from_layers, to_layers
from pixelwise.data.pixel_format import Pixels

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601 weights of red, green and blue, as in Pillow's conversion to gray."""


@dataclass(frozen=True)
class Distortion:
    """Random changes of the pixel values, each with a strength that is drawn for each image.

    Brightness, contrast, saturation and hue apply to the first three channels, and to none if the
    image has fewer. The other changes apply to all channels.

    Args:
        brightness: The factor is drawn from 1 - brightness to 1 + brightness.
        contrast: As `brightness`.
        saturation: As `brightness`.
        hue: Largest shift of the hue in both directions, in turns of the color circle.
        gamma: The exponent is drawn log-uniformly from 1 / (1 + gamma) to 1 + gamma.
        blur: Largest std of a Gaussian blur, in pixels.
        noise: Largest std of Gaussian noise, in units of 0..255.
        jpeg: Lowest quality of a JPEG compression, 1..95; the highest is 95. 0: no compression. For
            8-bit images with one or three channels.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gamma: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: int = 0

    def __call__(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """Distort an image (H, W, C) in units of 0..255, uint8 or float32; float is not clipped."""
        image = self._jitter(image, rng)
        if self.hue and image.shape[2] >= 3:
            colors = shift_hue(image[..., :3], rng.uniform(-self.hue, self.hue))
            image = image.copy()
            image[..., :3] = _as_type(colors, image)
        if self.gamma:
            limit = math.log(1 + self.gamma)
            exponent = math.exp(rng.uniform(-limit, limit))
            positive = np.maximum(image, np.float32(0))
            curved = 255 * (positive / 255) ** np.float32(exponent)
            image = _as_type(np.where(image > 0, curved, image), image)
        if self.blur:
            image = _as_type(blur(image, rng.uniform(0, self.blur)), image)
        if self.noise:
            noise = rng.standard_normal(image.shape, dtype=np.float32)
            image = _as_type(image + noise * np.float32(rng.uniform(0, self.noise)), image)
        if self.jpeg:
            image = compress(image, quality=int(rng.integers(self.jpeg, MAX_QUALITY + 1)))
        return image

    def _jitter(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """Change brightness, contrast and saturation."""
        brightness, contrast, saturation = (
            float(rng.uniform(1 - x, 1 + x))
            for x in (self.brightness, self.contrast, self.saturation)
        )
        if image.shape[2] < 3 or not (self.brightness or self.contrast or self.saturation):
            return image
        if image.dtype == np.uint8:
            rgb, *rest = to_layers(image)
            if self.brightness:
                rgb = ImageEnhance.Brightness(rgb).enhance(brightness)
            if self.contrast:
                rgb = ImageEnhance.Contrast(rgb).enhance(contrast)
            if self.saturation:
                rgb = ImageEnhance.Color(rgb).enhance(saturation)
            return from_layers([rgb, *rest])
        # The same operations as Pillow's, which supports 8-bit images only.
        image = image.copy()
        colors = image[..., :3]
        colors *= np.float32(brightness)
        mean = np.float32((colors @ _LUMA).mean())
        colors += (mean - colors) * np.float32(1 - contrast)
        gray = (colors @ _LUMA)[..., None]
        colors += (gray - colors) * np.float32(1 - saturation)
        return image


MAX_QUALITY = 95
"""Higher JPEG qualities make larger files and hardly a difference."""


def shift_hue(colors: Pixels, turns: float) -> NDArray[np.float32]:
    """Rotate RGB colors (H, W, 3) about the gray axis; gray and the mean of a color are kept.

    Args:
        colors: The colors.
        turns: Angle in full turns; a third maps red to green.
    """
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    # Rodrigues' formula for the axis (1, 1, 1) / sqrt(3).
    same, shift = (1 + 2 * cosine) / 3, sine / math.sqrt(3)
    before, after = (1 - cosine) / 3 - shift, (1 - cosine) / 3 + shift
    matrix = np.array(
        [[same, before, after], [after, same, before], [before, after, same]], dtype=np.float32
    )
    shifted: NDArray[np.float32] = colors.astype(np.float32) @ matrix.T
    return shifted


def blur(image: Pixels, std: float) -> NDArray[np.float32]:
    """Blur an image (H, W, C) with a Gaussian with a std in pixels."""
    radius = math.ceil(3 * std)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / max(std, 1e-6)) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    blurred = image.astype(np.float32)
    for axis in (0, 1):
        width = [(radius, radius) if axis == other else (0, 0) for other in range(3)]
        padded, length = np.pad(blurred, width, mode="edge"), blurred.shape[axis]
        parts = (
            weight * np.take(padded, range(first, first + length), axis)
            for first, weight in enumerate(kernel)
        )
        blurred = np.sum(list(parts), axis=0, dtype=np.float32)
    return blurred


def compress(image: NDArray[Any], *, quality: int) -> NDArray[np.uint8]:
    """Compress an 8-bit image (H, W, 1 or 3) as JPEG and decode it again."""
    stream = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(
        stream, format="JPEG", quality=quality
    )
    decoded = np.asarray(Image.open(stream))
    return decoded.reshape(image.shape)


def _as_type(values: NDArray[Any], like: Pixels) -> Pixels:
    """Convert float values to the type of an image; 8 bits are rounded and clipped."""
    if like.dtype == np.uint8:
        rounded: Pixels = np.rint(values).clip(0, 255).astype(np.uint8)
        return rounded
    floats: Pixels = values.astype(np.float32, copy=False)
    return floats
