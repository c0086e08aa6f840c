"""What the numbers of images mean: how many channels, of which type, what is 0 and what 255.

A network sees every image in one unit: 0..255, as 8-bit images have it. Those of 8 bits stay
as they are. Deeper ones become float32 by one straight line, `PixelFormat.value_range`, which is
found once over the images to train on and kept in the bundle; nothing is clipped, so that values
beyond the range lie beyond 0 and 255. Normalization, augmentation and padding then know one unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError

Pixels = NDArray[np.uint8] | NDArray[np.float32]
"""(H, W, C) in units of 0..255."""

MAX_CHANNELS = 512
DTYPES = {"uint8": "8 bits", "uint16": "16 bits", "float32": "floating point or signed numbers"}
"""How decoded images are held, in words."""


@dataclass(frozen=True)
class RawImage:
    """An image as decoded, upright.

    pixels: (H, W, C) of the numbers stored, of one of DTYPES, finite.
    alpha: whether the file says that the last channel is opacity.
    doubtful: whether that is to be doubted: programs call a fourth channel of a TIFF opacity,
    whatever it holds.
    """

    pixels: NDArray[Any]
    alpha: bool = False
    doubtful: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def channels(self) -> int:
        """Without opacity; gray ones have 3, as they become RGB."""
        own = self.pixels.shape[2] - self.alpha
        return 3 if own == 1 else own

    @property
    def kept_bytes(self) -> int:
        """Of memory, when gray has become RGB."""
        stored = self.pixels.shape[2]
        return int(self.pixels.nbytes // stored * max(stored, self.channels))

    @property
    def dtype(self) -> str:
        return str(self.pixels.dtype)

    def __str__(self) -> str:
        return _described(self.pixels.shape[2], self.dtype)


def _described(channels: int, dtype: str) -> str:
    return f"{channels} channel{'s' if channels > 1 else ''} of {DTYPES[dtype]}"


@dataclass(frozen=True)
class PixelFormat:
    """What the images of a data set are, and of all that its network is given.

    channels: 3 are RGB; of more, the first three are.
    dtype: one of DTYPES, as the files have it.
    value_range: the stored values that become 0 and 255, in all channels.

    Raises InputError for values that are not allowed.
    """

    channels: int = 3
    dtype: str = "uint8"
    value_range: tuple[float, float] = (0, 255)

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise InputError(f"{self.channels} channels: allowed are 1 to {MAX_CHANNELS}")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype!r}: allowed are {', '.join(DTYPES)}")
        low, high = self.value_range
        if not (np.isfinite([low, high]).all() and low < high):
            raise InputError(
                f"value_range {[low, high]}: two numbers in rising order, which become 0 and 255"
            )

    @property
    def is_bytes(self) -> bool:
        """Whether images stay the bytes they are."""
        return self.dtype == "uint8" and self.value_range == (0, 255)

    @property
    def given(self) -> str:
        """The type in which networks are given images: uint8, or float32 for what is scaled."""
        return "uint8" if self.is_bytes else "float32"

    def __str__(self) -> str:
        low, high = self.value_range
        shown = "" if self.is_bytes else f", values {low:g} to {high:g} as 0 to 255"
        return _described(self.channels, self.dtype) + shown

    def select(self, raw: RawImage, path: Path | str, *, remedy: str = "") -> NDArray[Any]:
        """The channels (H, W, C) that are wanted of an image, numbers as stored.

        Opacity is left out, unless it is needed as a channel; gray becomes RGB.
        Raises InputError for an image of other channels or another type.
        """
        pixels = raw.pixels
        stored = pixels.shape[2]
        if raw.dtype == self.dtype:
            if stored == self.channels:
                return pixels
            if raw.channels == self.channels:
                colors = 1 if stored - raw.alpha == 1 else stored - 1
                chosen = pixels[..., :colors]
                return np.ascontiguousarray(chosen.repeat(3, axis=2) if colors == 1 else chosen)
        if not remedy:
            plain = self.is_bytes and raw.dtype != "uint8" and raw.channels == self.channels == 3
            remedy = "save it as an 8-bit PNG" if plain else "give images of that kind"
        wanted = _described(self.channels, self.dtype)
        raise InputError(f"{path}: has {raw}, but {wanted} are needed: {remedy}")

    def scale(self, pixels: NDArray[Any]) -> Pixels:
        """Stored numbers in units of 0..255: uint8 as they are, else float32, not clipped."""
        if self.is_bytes:
            return pixels
        low, high = self.value_range
        return (pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))

    def like(self, image: NDArray[np.uint8]) -> Pixels:
        """An image (H, W, 3) as a network of this format is given one, its colors repeated for
        further channels: to try the network out."""
        chosen: Pixels = image[..., np.arange(self.channels) % 3].astype(self.given)
        return chosen

    def to_json(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "dtype": self.dtype,
            "value_range": [float(end) for end in self.value_range],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PixelFormat:
        """The inverse of `to_json`. Raises KeyError, TypeError, ValueError where it is none."""
        low, high = data["value_range"]
        return cls(int(data["channels"]), str(data["dtype"]), (float(low), float(high)))


RGB = PixelFormat()
"""Images of 8 bits."""


def as_shown(pixels: Pixels) -> NDArray[np.uint8]:
    """What a person is shown of an image (H, W, C) in units of 0..255: RGB (H, W, 3), uint8.

    The first three channels; of fewer the first, as gray. Values beyond 0..255 are cut off.
    """
    chosen = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)
    if chosen.dtype != np.uint8:
        chosen = np.rint(chosen).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(chosen)
