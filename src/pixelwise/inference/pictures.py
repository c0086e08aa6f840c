"""Pictures that are read by windows, whether they lie in memory or in a file."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pixelwise.data.pixels import Pixels


class Picture(Protocol):
    """size: (height, width)."""

    @property
    def size(self) -> tuple[int, int]: ...

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """The window (height, width, 3), uint8 RGB, that begins there and lies in the picture."""


class ArrayPicture:
    """A picture in memory, (H, W, channels) in units of 0..255."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        window: Pixels = self.pixels[top : top + height, left : left + width].copy()
        return window


class PaddedPicture:
    """A picture with sides that are multiples of `step`: its last row and column are repeated."""

    def __init__(self, picture: Picture, step: int) -> None:
        self.picture = picture
        self.step = step

    @property
    def size(self) -> tuple[int, int]:
        height, width = (-(-side // self.step) * self.step for side in self.picture.size)
        return height, width

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        inside = [
            min(side, whole - first)
            for first, side, whole in zip(
                (top, left), (height, width), self.picture.size, strict=True
            )
        ]
        pixels = self.picture.read(top, left, *inside)
        missing = ((0, height - inside[0]), (0, width - inside[1]), (0, 0))
        padded: Pixels = np.pad(pixels, missing, mode="edge")  # type: ignore[assignment]
        return padded
