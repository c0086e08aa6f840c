"""Joint augmentation of image and mask: the papers' scale, crop and flip, and color jitter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from pixelwise.data.classes import IGNORE
from pixelwise.data.pixel_format import Pixels

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601 weights of red, green and blue, as in Pillow's conversion to gray."""


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, horizontal flip and color jitter in one call.

    Image and mask are sampled at the same positions: the image by bilinear interpolation, the mask
    by nearest neighbor. At scale 1 a crop starts at a whole pixel, so that both are exact copies.

    Args:
        crop: (height, width) of the output; None for the whole scaled image.
        scale: Smallest and largest factor, drawn log-uniformly: halving is as likely as doubling.
        flip: Probability of a horizontal flip.
        brightness: The factor is drawn from 1 - brightness to 1 + brightness. Color jitter
            applies to the first three channels, and to none if the image has fewer.
        contrast: As `brightness`.
        saturation: As `brightness`.
        rare_crops: Probability that a crop must contain a pixel of a class that is drawn from those
            of the mask by `class_weights`. Matters where crops are smaller than scaled images.
        class_weights: Weight of each class in that draw (C,).
        fill: Value of each channel where the crop extends beyond the image. The mask is IGNORE
            there.
    """

    crop: tuple[int, int] | None
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    rare_crops: float = 0.0
    class_weights: tuple[float, ...] = ()
    fill: tuple[float, ...] = (124, 116, 104)

    def __call__(
        self, image: Pixels, mask: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[Pixels, NDArray[np.uint8]]:
        """Augment one image and its mask.

        Args:
            image: (H, W, C) in units of 0..255, uint8 or float32. Float images are not clipped.
            mask: (H, W) class indices.
            rng: Source of all random draws: the same state gives the same result.

        Returns:
            The image (crop height, crop width, C) and the mask (crop height, crop width).
        """
        low, high = self.scale
        factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        crop = self.crop
        if crop is None:
            crop = (max(1, round(mask.shape[0] * factor)), max(1, round(mask.shape[1] * factor)))
        row = column = None
        if self.rare_crops and rng.random() < self.rare_crops:
            row, column = self._draw_rare_pixel(mask, rng)
        rows = _draw_span(mask.shape[0], crop[0], factor, rng, contains=row)
        columns = _draw_span(mask.shape[1], crop[1], factor, rng, contains=column)
        # Only the source pixels of the crop are resized: a crop of an image scaled by 2 costs no
        # more than one of an image scaled by 0.5.
        box = (columns.source[0], rows.source[0], columns.source[1], rows.source[1])
        size = (columns.length, rows.length)
        layers = [
            layer.resize(size, Image.Resampling.BILINEAR, box=box) for layer in _to_layers(image)
        ]
        pixels = self._jitter(layers, rng)
        labels = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST, box=box)
        inside = (
            slice(rows.offset, rows.offset + rows.length),
            slice(columns.offset, columns.offset + columns.length),
        )
        out_image = np.empty((*crop, image.shape[2]), dtype=image.dtype)
        out_mask = np.full(crop, IGNORE, dtype=np.uint8)
        if size != (crop[1], crop[0]):
            fill = np.array(self.fill)
            out_image[:] = np.rint(fill).clip(0, 255) if image.dtype == np.uint8 else fill
        out_image[inside] = pixels
        out_mask[inside] = np.asarray(labels)
        if rng.random() < self.flip:
            out_image, out_mask = out_image[:, ::-1], out_mask[:, ::-1]
        return np.ascontiguousarray(out_image), np.ascontiguousarray(out_mask)

    def _draw_rare_pixel(
        self, mask: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[int, int] | tuple[None, None]:
        """Draw a class of the mask by its weight, and the (row, column) of one of its pixels."""
        counts = np.bincount(mask.ravel(), minlength=256)[: len(self.class_weights)]
        weights = np.where(counts > 0, self.class_weights, 0)
        if weights.sum() == 0:  # only ignored pixels
            return None, None
        drawn = rng.choice(len(weights), p=weights / weights.sum())
        pixels = np.flatnonzero(mask == drawn)
        row, column = divmod(int(rng.choice(pixels)), mask.shape[1])
        return row, column

    def _jitter(self, layers: list[Image.Image], rng: np.random.Generator) -> Pixels:
        """Jitter the colors and stack the layers to (H, W, C)."""
        brightness, contrast, saturation = (
            float(rng.uniform(1 - x, 1 + x))
            for x in (self.brightness, self.contrast, self.saturation)
        )
        if layers[0].mode == "RGB":
            rgb = layers[0]
            if self.brightness:
                rgb = ImageEnhance.Brightness(rgb).enhance(brightness)
            if self.contrast:
                rgb = ImageEnhance.Contrast(rgb).enhance(contrast)
            if self.saturation:
                rgb = ImageEnhance.Color(rgb).enhance(saturation)
            layers = [rgb, *layers[1:]]
        arrays = [np.asarray(layer) for layer in layers]
        pixels: Pixels = np.dstack(arrays) if len(arrays) > 1 else np.atleast_3d(arrays[0])
        if pixels.dtype == np.float32 and pixels.shape[2] >= 3:
            # The same operations as Pillow's, which supports 8-bit images only.
            colors = pixels[..., :3]
            colors *= np.float32(brightness)
            mean = np.float32((colors @ _LUMA).mean())
            colors += (mean - colors) * np.float32(1 - contrast)
            gray = (colors @ _LUMA)[..., None]
            colors += (gray - colors) * np.float32(1 - saturation)
        return pixels


def _to_layers(image: Pixels) -> list[Image.Image]:
    """Split an image into layers that Pillow can resize: 8-bit RGB together, others singly."""
    colors = 3 if image.dtype == np.uint8 and image.shape[2] >= 3 else 0
    first = [np.ascontiguousarray(image[..., :3])] if colors else []
    others = (np.ascontiguousarray(image[..., c]) for c in range(colors, image.shape[2]))
    return [Image.fromarray(layer) for layer in (*first, *others)]


@dataclass(frozen=True)
class _Span:
    """One axis of a crop: the source interval, and the pixels that it fills in the output."""

    source: tuple[float, float]
    offset: int
    length: int


def _draw_span(
    extent: int, crop: int, factor: float, rng: np.random.Generator, *, contains: int | None = None
) -> _Span:
    """Draw the part of an axis of `extent` pixels that `crop` pixels show at scale `factor`.

    The part contains the pixel `contains`, if one is given.
    """
    covered = crop / factor
    low, high = 0.0, extent - covered
    if contains is not None:
        high = min(high, float(contains))
        low = min(max(low, contains + 1 - covered), high)
    if factor == 1 and crop <= extent:  # a whole pixel: a fraction would resample the image
        start = int(rng.integers(int(low), int(high) + 1))
        return _Span((start, start + crop), 0, crop)
    if covered <= extent:
        # Fractions of a pixel: with whole ones the nearest neighbors at scale 0.5 would all be
        # ties, and the mask would be shifted against the image by half a pixel.
        first = float(rng.uniform(low, high))
        return _Span((first, min(first + covered, extent)), 0, crop)
    length = min(crop, max(1, round(extent * factor)))
    return _Span((0, extent), int(rng.integers(0, crop - length + 1)), length)
