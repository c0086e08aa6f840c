"""Several looks at one image: at other scales and mirrored, as the DeepLab papers score.

DeepLabV3 (arXiv:1706.05587, section 4.1, "inference strategy") takes scales from 0.5 to 1.75 and
left-right flips; its authors' code (model.py, predict_labels_multi_scale) upsamples the logits to
the image's size, takes their softmax, and averages these probabilities. So does this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.results import softmax

SMALLEST, LARGEST = 0.1, 10.0

Logits = Callable[[Pixels], NDArray[np.float32]]


@dataclass(frozen=True)
class TTA:
    """scales: of the image's sides, each a look; flip: each look mirrored, too.

    Raises InputError for no scale, one that is given twice, and one outside 0.1 to 10.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if not self.scales:
            raise InputError("scales: give at least one, 1 for the image as it is")
        for scale in self.scales:
            if not SMALLEST <= scale <= LARGEST:  # NaN is refused, too
                raise InputError(f"scale {scale:g}: allowed are {SMALLEST:g} to {LARGEST:g}")
            if self.scales.count(scale) > 1:
                raise InputError(f"scale {scale:g}: is given twice")

    @property
    def single(self) -> bool:
        """Whether one look at the image as it is is all."""
        return self.scales == (1.0,) and not self.flip

    def __str__(self) -> str:
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return f"scales {scales}" + (", mirrored too" if self.flip else "")

    def to_json(self) -> dict[str, Any]:
        return {"scales": list(self.scales), "flip": self.flip}

    def probabilities(self, image: Pixels, logits: Logits) -> NDArray[np.float32]:
        """The mean of all looks' probabilities, (C, H, W), of an image (H, W, C).

        logits: the network; (h, w, C) to (classes, h, w).
        """
        height, width = image.shape[:2]
        total: NDArray[np.float32] | None = None
        for scale in self.scales:
            size = max(1, round(height * scale)), max(1, round(width * scale))
            scaled = _resize_image(image, size)
            for mirrored in (False, True) if self.flip else (False,):
                seen = logits(scaled[:, ::-1].copy() if mirrored else scaled)
                seen = _resize_maps(seen[:, :, ::-1] if mirrored else seen, (height, width))
                found = softmax(seen)
                total = found if total is None else np.add(total, found, out=total)
        assert total is not None
        total /= len(self.scales) * (2 if self.flip else 1)
        return total


def as_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """What a person gives as scales; none means the image as it is."""
    return tuple(float(scale) for scale in scales) or (1.0,)


def _resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """To `size` (height, width); bilinear, over all pixels that a smaller one stands for."""
    if image.shape[:2] == size:
        return image
    if image.shape[2] == 3 and image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    channels = np.moveaxis(image, 2, 0).astype(np.float32)
    scaled = np.moveaxis(_resize_maps(channels, size), 0, 2).copy()
    return np.rint(scaled).astype(np.uint8) if image.dtype == np.uint8 else scaled


def _resize_maps(maps: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Each of (C, h, w) to `size` (height, width), in the same way."""
    if maps.shape[1:] == size:
        return maps
    resized = np.empty((len(maps), *size), np.float32)
    for source, target in zip(maps, resized, strict=True):
        image = Image.fromarray(np.ascontiguousarray(source))
        target[:] = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    return resized
