"""Joint transforms of image and mask: the papers' four steps, scale, crop, flip and color."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from pixelwise.data.classes import IGNORE
from pixelwise.data.pixel_format import Pixels


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, horizontal flip and color, as one call.

    crop: (height, width) of what comes out; None: the whole image, scaled.
    scale: smallest and largest factor; drawn so that halving is as likely as doubling.
    flip: probability of mirroring left and right.
    brightness, contrast, saturation: factors are drawn from 1 - x to 1 + x; of images of more
        than three channels red, green and blue alone are changed, of fewer none.
    fill: the image where the crop reaches over the image's edge; the mask is IGNORE there.
    """

    crop: tuple[int, int] | None
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    fill: tuple[float, ...] = (124, 116, 104)

    def __call__(
        self, image: Pixels, mask: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[Pixels, NDArray[np.uint8]]:
        """(H, W, C) in units of 0..255 and (H, W) to `crop`; the same `rng` state gives the same
        result. Images of float32 are not clipped."""
        low, high = self.scale
        factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        crop = self.crop
        if crop is None:
            crop = (max(1, round(mask.shape[0] * factor)), max(1, round(mask.shape[1] * factor)))
        rows = _span(mask.shape[0], crop[0], factor, rng)
        columns = _span(mask.shape[1], crop[1], factor, rng)
        # Only the part that stays is resized, from the source's own pixels: a crop of an image
        # twice as large costs no more than one of an image half as large.
        box = (columns.source[0], rows.source[0], columns.source[1], rows.source[1])
        size = (columns.length, rows.length)
        layers = [
            layer.resize(size, Image.Resampling.BILINEAR, box=box) for layer in _layers(image)
        ]
        picture = self._color(layers, rng)
        labels = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST, box=box)
        place = (
            slice(rows.offset, rows.offset + rows.length),
            slice(columns.offset, columns.offset + columns.length),
        )
        out_image = np.empty((*crop, image.shape[2]), dtype=image.dtype)
        out_mask = np.full(crop, IGNORE, dtype=np.uint8)
        if size != (crop[1], crop[0]):
            fill = np.array(self.fill)
            out_image[:] = np.rint(fill).clip(0, 255) if image.dtype == np.uint8 else fill
        out_image[place] = picture
        out_mask[place] = np.asarray(labels)
        if rng.random() < self.flip:
            out_image, out_mask = out_image[:, ::-1], out_mask[:, ::-1]
        return np.ascontiguousarray(out_image), np.ascontiguousarray(out_mask)

    def _color(self, layers: list[Image.Image], rng: np.random.Generator) -> Pixels:
        """The layers as one image (H, W, C), red, green and blue changed."""
        bright, contrast, saturation = (
            float(rng.uniform(1 - x, 1 + x))
            for x in (self.brightness, self.contrast, self.saturation)
        )
        if layers[0].mode == "RGB":
            picture = layers[0]
            if self.brightness:
                picture = ImageEnhance.Brightness(picture).enhance(bright)
            if self.contrast:
                picture = ImageEnhance.Contrast(picture).enhance(contrast)
            if self.saturation:
                picture = ImageEnhance.Color(picture).enhance(saturation)
            layers = [picture, *layers[1:]]
        parts = [np.asarray(layer) for layer in layers]
        pixels: Pixels = np.dstack(parts) if len(parts) > 1 else np.atleast_3d(parts[0])
        if pixels.dtype == np.float32 and pixels.shape[2] >= 3:
            # The same steps as Pillow's, which knows bytes only.
            colors = pixels[..., :3]
            colors *= np.float32(bright)
            mean = np.float32((colors @ _GRAY).mean())
            colors += (mean - colors) * np.float32(1 - contrast)
            gray = (colors @ _GRAY)[..., None]
            colors += (gray - colors) * np.float32(1 - saturation)
        return pixels


_GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _layers(image: Pixels) -> list[Image.Image]:
    """What Pillow can resize: red, green and blue of bytes as one, each other channel by itself."""
    together = 3 if image.dtype == np.uint8 and image.shape[2] >= 3 else 0
    rest = (np.ascontiguousarray(image[..., c]) for c in range(together, image.shape[2]))
    first = [np.ascontiguousarray(image[..., :3])] if together else []
    return [Image.fromarray(part) for part in (*first, *rest)]


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
