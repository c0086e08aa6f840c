"""Random augmentation for training: geometry of image and mask, and distortion of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import IGNORE
from pixelwise.data.distortion import Distortion
from pixelwise.data.image_layers import from_layers, to_layers
from pixelwise.data.pixel_format import Pixels
from pixelwise.data.rotation import rotate, rotated_extent

Mask = NDArray[np.uint8]

UNDISTORTED = Distortion()


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, rotation, flips and changes of the pixel values in one call.

    Image and mask are sampled at the same positions: the image by bilinear interpolation, the mask
    by nearest neighbor. At scale 1 a crop starts at a whole pixel, so that both are exact copies.

    Args:
        crop: (height, width) of the output; None for the whole scaled image.
        scale: Smallest and largest factor, drawn log-uniformly: halving is as likely as doubling.
        rotation: Largest angle in degrees, in both directions.
        flip: Probability of a horizontal flip.
        vertical_flip: Probability of a vertical flip.
        quarter_turns: Probability of a turn by 90, 180 or 270 degrees.
        rare_crops: Probability that a crop must contain a pixel of a class that is drawn from those
            of the mask by `class_weights`. Matters where crops are smaller than scaled images.
        class_weights: Weight of each class in that draw (C,).
        cutout: Largest side of a square that is replaced by `fill`, relative to the shorter side of
            the crop. The mask is IGNORE there.
        distortion: Random changes of the pixel values.
        fill: Value of each channel where the crop extends beyond the image. The mask is IGNORE
            there.
    """

    crop: tuple[int, int] | None
    scale: tuple[float, float] = (0.5, 2.0)
    rotation: float = 0.0
    flip: float = 0.5
    vertical_flip: float = 0.0
    quarter_turns: float = 0.0
    rare_crops: float = 0.0
    class_weights: tuple[float, ...] = ()
    cutout: float = 0.0
    distortion: Distortion = UNDISTORTED
    fill: tuple[float, ...] = (124, 116, 104)

    def __call__(self, image: Pixels, mask: Mask, rng: np.random.Generator) -> tuple[Pixels, Mask]:
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
        turns, angle = 0, 0.0
        if self.quarter_turns and rng.random() < self.quarter_turns:
            turns = int(rng.integers(1, 4))
        if self.rotation:
            angle = math.radians(rng.uniform(-self.rotation, self.rotation))
        crop = self.crop
        if crop is None:
            crop = (max(1, round(mask.shape[0] * factor)), max(1, round(mask.shape[1] * factor)))
        elif turns % 2:
            crop = crop[::-1]
        pixels, labels = self._scaled_crop(image, mask, rotated_extent(crop, angle), factor, rng)
        if angle:
            pixels, labels = rotate(pixels, labels, crop, angle)
        if turns:
            pixels = np.rot90(pixels, turns)
            labels = np.rot90(labels, turns)
        if rng.random() < self.flip:
            pixels, labels = pixels[:, ::-1], labels[:, ::-1]
        if self.vertical_flip and rng.random() < self.vertical_flip:
            pixels, labels = pixels[::-1], labels[::-1]
        # Copies are contiguous and can be modified.
        return self._cut_out(pixels.copy(), labels.copy(), rng)

    def _cut_out(self, image: Pixels, mask: Mask, rng: np.random.Generator) -> tuple[Pixels, Mask]:
        """Fill and ignore a square, in place."""
        if self.cutout:
            hole = _draw_square(mask.shape, self.cutout, rng)
            image[hole], mask[hole] = self._fill_for(image), IGNORE
        return image, mask

    def _scaled_crop(
        self,
        image: Pixels,
        mask: Mask,
        crop: tuple[int, int],
        factor: float,
        rng: np.random.Generator,
    ) -> tuple[Pixels, Mask]:
        """Draw a crop, scale and distort its part of the image, and fill the rest."""
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
            layer.resize(size, Image.Resampling.BILINEAR, box=box) for layer in to_layers(image)
        ]
        pixels = self.distortion(from_layers(layers), rng)
        labels = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST, box=box)
        inside = (
            slice(rows.offset, rows.offset + rows.length),
            slice(columns.offset, columns.offset + columns.length),
        )
        out_image = np.empty((*crop, image.shape[2]), dtype=image.dtype)
        out_mask = np.full(crop, IGNORE, dtype=np.uint8)
        if size != (crop[1], crop[0]):
            out_image[:] = self._fill_for(image)
        out_image[inside] = pixels
        out_mask[inside] = np.asarray(labels)
        return out_image, out_mask

    def _fill_for(self, image: Pixels) -> NDArray[Any]:
        fill = np.array(self.fill)
        return np.rint(fill).clip(0, 255) if image.dtype == np.uint8 else fill

    def _draw_rare_pixel(
        self, mask: Mask, rng: np.random.Generator
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


def _draw_square(
    shape: tuple[int, ...], largest: float, rng: np.random.Generator
) -> tuple[slice, slice]:
    """Draw a square inside a map, with a side of up to `largest` of the shorter side."""
    side = round(rng.uniform(0, largest) * min(shape))
    row, column = (int(rng.integers(0, length - side + 1)) for length in shape[:2])
    return slice(row, row + side), slice(column, column + side)


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
