"""Joint transforms of image and mask: the papers' four steps, scale, crop, flip and colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from pixelwise.data.classes import IGNORE


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, horizontal flip and colour, as one call.

    crop: (height, width) of what comes out; None: the whole image, scaled.
    scale: smallest and largest factor; drawn so that halving is as likely as doubling.
    flip: probability of mirroring left and right.
    brightness, contrast, saturation: factors are drawn from 1 - x to 1 + x.
    fill: RGB where the crop reaches over the image's edge; the mask is IGNORE there.
    """

    crop: tuple[int, int] | None
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    fill: tuple[int, int, int] = (124, 116, 104)

    def __call__(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(H, W, 3) and (H, W) to `crop`; the same `rng` state gives the same result."""
        low, high = self.scale
        factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        crop = self.crop
        if crop is None:
            crop = (max(1, round(mask.shape[0] * factor)), max(1, round(mask.shape[1] * factor)))
        rows = _span(mask.shape[0], crop[0], factor, rng)
        columns = _span(mask.shape[1], crop[1], factor, rng)
        # Only the part that stays is resized, from the source's own pixels: a crop of a picture
        # twice as large costs no more than one of a picture half as large.
        box = (columns.source[0], rows.source[0], columns.source[1], rows.source[1])
        size = (columns.length, rows.length)
        picture = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box)
        picture = self._colour(picture, rng)
        labels = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST, box=box)
        place = (
            slice(rows.offset, rows.offset + rows.length),
            slice(columns.offset, columns.offset + columns.length),
        )
        out_image = np.empty((*crop, 3), dtype=np.uint8)
        out_mask = np.full(crop, IGNORE, dtype=np.uint8)
        if size != (crop[1], crop[0]):
            out_image[:] = self.fill
        out_image[place] = np.asarray(picture)
        out_mask[place] = np.asarray(labels)
        if rng.random() < self.flip:
            out_image, out_mask = out_image[:, ::-1], out_mask[:, ::-1]
        return np.ascontiguousarray(out_image), np.ascontiguousarray(out_mask)

    def _colour(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        bright, contrast, saturation = (
            float(rng.uniform(1 - x, 1 + x))
            for x in (self.brightness, self.contrast, self.saturation)
        )
        if self.brightness:
            picture = ImageEnhance.Brightness(picture).enhance(bright)
        if self.contrast:
            picture = ImageEnhance.Contrast(picture).enhance(contrast)
        if self.saturation:
            picture = ImageEnhance.Color(picture).enhance(saturation)
        return picture


@dataclass(frozen=True)
class _Span:
    """One axis of a crop: the source interval, and where its pixels lie in the output."""

    source: tuple[float, float]
    offset: int
    length: int


def _span(extent: int, crop: int, factor: float, rng: np.random.Generator) -> _Span:
    window = crop / factor
    if window <= extent:
        start = float(rng.uniform(0, extent - window))
        return _Span((start, min(start + window, extent)), 0, crop)
    length = min(crop, max(1, round(extent * factor)))
    return _Span((0, extent), int(rng.integers(0, crop - length + 1)), length)
