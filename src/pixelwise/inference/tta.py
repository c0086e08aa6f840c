"""Test-time augmentation (TTA): average over scaled and mirrored views of an image.

DeepLabV3 (arXiv:1706.05587, section 4.1, "inference strategy") uses scales from 0.5 to 1.75 and
left-right flips. Like its authors' code (model.py, predict_labels_multi_scale), this module
upsamples the logits to the image's size, applies the softmax, and averages the probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.results import softmax

MIN_SCALE, MAX_SCALE = 0.1, 10.0

Logits = Callable[[Pixels], NDArray[np.float32]]


@dataclass(frozen=True)
class TTA:
    """The views of an image that are averaged.

    Args:
        scales: One view for each scale of the image's sides, 0.1 to 10.
        flip: Whether to add a mirrored copy of each view.

    Raises:
        InputError: If there is no scale, or one is repeated or out of range.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if not self.scales:
            raise InputError("scales: give at least one, 1 for the image as it is")
        for scale in self.scales:
            if not MIN_SCALE <= scale <= MAX_SCALE:  # also refuses NaN
                raise InputError(f"scale {scale:g}: allowed are {MIN_SCALE:g} to {MAX_SCALE:g}")
            if self.scales.count(scale) > 1:
                raise InputError(f"scale {scale:g}: is given twice: leave one out")

    @property
    def single(self) -> bool:
        """Whether the only view is the image itself."""
        return self.scales == (1.0,) and not self.flip

    def __str__(self) -> str:
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return f"scales {scales}" + (", with flip" if self.flip else "")

    def to_json(self) -> dict[str, Any]:
        return {"scales": list(self.scales), "flip": self.flip}

    def probabilities(self, image: Pixels, logits: Logits) -> NDArray[np.float32]:
        """Average the probabilities over all views.

        Args:
            image: (H, W, C) in units of 0..255.
            logits: The network: maps (h, w, C) to (classes, h, w).

        Returns:
            (classes, H, W) float32.
        """
        height, width = image.shape[:2]
        total: NDArray[np.float32] | None = None
        for scale in self.scales:
            size = max(1, round(height * scale)), max(1, round(width * scale))
            scaled = _resize_image(image, size)
            for mirrored in (False, True) if self.flip else (False,):
                maps = logits(scaled[:, ::-1].copy() if mirrored else scaled)
                maps = _resize_maps(maps[:, :, ::-1] if mirrored else maps, (height, width))
                view = softmax(maps)
                total = view if total is None else np.add(total, view, out=total)
        assert total is not None
        total /= len(self.scales) * (2 if self.flip else 1)
        return total


def _resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize (H, W, C) to `size` (height, width), bilinear with antialiasing."""
    if image.shape[:2] == size:
        return image
    if image.shape[2] == 3 and image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    channels = np.moveaxis(image, 2, 0).astype(np.float32)
    scaled = np.moveaxis(_resize_maps(channels, size), 0, 2).copy()
    return np.rint(scaled).astype(np.uint8) if image.dtype == np.uint8 else scaled


def _resize_maps(maps: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize (C, h, w) to `size` (height, width), bilinear with antialiasing."""
    if maps.shape[1:] == size:
        return maps
    resized = np.empty((len(maps), *size), np.float32)
    for source, target in zip(maps, resized, strict=True):
        image = Image.fromarray(np.ascontiguousarray(source))
        target[:] = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    return resized
