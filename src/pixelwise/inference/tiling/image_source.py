"""Images that are read by tiles, whether they lie in memory or in a file."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pixelwise.data.pixel_format import Pixels


class ImageSource(Protocol):
    """size: (height, width)."""

    @property
    def size(self) -> tuple[int, int]: ...

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """The tile (height, width, C) that begins there and lies in the image."""


class ArraySource:
    """An image in memory, (H, W, C)."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        return self.pixels[top : top + height, left : left + width].copy()


class PaddedSource:
    """An image with sides that are multiples of `step`: its last row and column are repeated."""

    def __init__(self, image: ImageSource, step: int) -> None:
        self.image = image
        self.step = step

    @property
    def size(self) -> tuple[int, int]:
        height, width = (-(-side // self.step) * self.step for side in self.image.size)
        return height, width

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        inside = [
            min(side, whole - first)
            for first, side, whole in zip(
                (top, left), (height, width), self.image.size, strict=True
            )
        ]
        pixels = self.image.read(top, left, *inside)
        missing = ((0, height - inside[0]), (0, width - inside[1]), (0, 0))
        padded: Pixels = np.pad(pixels, missing, mode="edge")  # type: ignore[assignment]
        return padded
