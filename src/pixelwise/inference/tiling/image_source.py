"""Images that are read in tiles, from memory or from a file."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pixelwise.data.pixel_format import Pixels


class ImageSource(Protocol):
    """An image whose tiles can be read."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Read the tile (height, width, C) at this position, which lies inside the image."""


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
    """An image padded to multiples of `step` by repeating its last row and column."""

    def __init__(self, image: ImageSource, step: int) -> None:
        self.image = image
        self.step = step

    @property
    def size(self) -> tuple[int, int]:
        height, width = (-(-side // self.step) * self.step for side in self.image.size)
        return height, width

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        inside = [
            min(side, length - start)
            for start, side, length in zip(
                (top, left), (height, width), self.image.size, strict=True
            )
        ]
        pixels = self.image.read(top, left, *inside)
        missing = ((0, height - inside[0]), (0, width - inside[1]), (0, 0))
        padded: Pixels = np.pad(pixels, missing, mode="edge")  # type: ignore[assignment]
        return padded
