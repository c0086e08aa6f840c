"""The pixel format of a dataset: number of channels, type, and the value range of the images.

Networks see all images in the same unit, 0..255, as in 8-bit images. 8-bit images are used as they
are. Others become float32 by a linear map (`PixelFormat.value_range`), which is determined once on
the training images and stored in the bundle. Values are not clipped: those beyond the range map to
values below 0 or above 255. Normalization, augmentation and padding all use this unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError

Pixels = NDArray[np.uint8] | NDArray[np.float32]
"""(H, W, C) in units of 0..255."""

MAX_CHANNELS = 512
DTYPES = {"uint8": "8 bits", "uint16": "16 bits", "float32": "floating-point or signed numbers"}
"""The types of decoded images, described for messages."""


@dataclass(frozen=True)
class RawImage:
    """A decoded image, upright, with its stored values.

    Attributes:
        pixels: (H, W, C) of one of DTYPES, finite.
        alpha: Whether the file labels the last channel as alpha.
        unsure_alpha: Whether that label is unreliable: programs label the fourth channel of a
            TIFF as alpha whatever it holds.
        missing: (H, W) the pixels of a raster without data; None if all have data.
    """

    pixels: NDArray[Any]
    alpha: bool = False
    unsure_alpha: bool = False
    missing: NDArray[np.bool_] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def channels(self) -> int:
        """Number of channels without alpha; 3 for gray images, which become RGB."""
        stored = self.pixels.shape[2] - self.alpha
        return 3 if stored == 1 else stored

    @property
    def cached_bytes(self) -> int:
        """Memory of the image once gray has become RGB."""
        stored = self.pixels.shape[2]
        return int(self.pixels.nbytes // stored * max(stored, self.channels))

    @property
    def dtype(self) -> str:
        return str(self.pixels.dtype)

    def __str__(self) -> str:
        return _describe(self.pixels.shape[2], self.dtype)


def _describe(channels: int, dtype: str) -> str:
    return f"{channels} channel{'s' if channels > 1 else ''} of {DTYPES[dtype]}"


@dataclass(frozen=True)
class PixelFormat:
    """Format of the images of a dataset, and of everything that its network is given.

    Args:
        channels: Number of channels; the first three are RGB if there are at least three.
        dtype: Type of the stored values, one of DTYPES.
        value_range: Stored values that become 0 and 255, in all channels.

    Raises:
        InputError: If a value is not allowed.
    """

    channels: int = 3
    dtype: str = "uint8"
    value_range: tuple[float, float] = (0, 255)

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise InputError(f"{self.channels} channels: 1 to {MAX_CHANNELS} are allowed")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype!r}: allowed are {', '.join(DTYPES)}")
        low, high = self.value_range
        if not (np.isfinite([low, high]).all() and low < high):
            raise InputError(
                f"value_range {[low, high]}: give the values that become 0 and 255, the lower first"
            )

    @property
    def is_bytes(self) -> bool:
        """Whether images are used as they are, as uint8."""
        return self.dtype == "uint8" and self.value_range == (0, 255)

    @property
    def network_dtype(self) -> str:
        """Type of the images that networks are given: uint8, or float32 if they are scaled."""
        return "uint8" if self.is_bytes else "float32"

    def __str__(self) -> str:
        low, high = self.value_range
        shown = "" if self.is_bytes else f", values {low:g} to {high:g} as 0 to 255"
        return _describe(self.channels, self.dtype) + shown

    def select(self, raw: RawImage, path: Path | str, *, remedy: str = "") -> NDArray[Any]:
        """Return the channels (H, W, C) of this format, with the stored values.

        Alpha is dropped unless the format needs it as a channel; gray becomes RGB. In images of
        more than 8 bits, pixels without data become 0 in units of 0..255, because their values may
        be far out of range.

        Raises:
            InputError: If the image has other channels or another type.
        """
        pixels = raw.pixels
        if raw.missing is not None and not self.is_bytes and raw.dtype == self.dtype:
            low = self.value_range[0] if raw.dtype == "float32" else round(self.value_range[0])
            pixels = np.where(raw.missing[..., None], pixels.dtype.type(low), pixels)
        stored = pixels.shape[2]
        if raw.dtype == self.dtype:
            if stored == self.channels:
                return pixels
            if raw.channels == self.channels:
                colors = 1 if stored - raw.alpha == 1 else stored - 1
                chosen = pixels[..., :colors]
                return np.ascontiguousarray(chosen.repeat(3, axis=2) if colors == 1 else chosen)
        if not remedy:
            deep = self.is_bytes and raw.dtype != "uint8" and raw.channels == self.channels == 3
            remedy = "save it as an 8-bit PNG" if deep else "provide images in this format"
        expected = _describe(self.channels, self.dtype)
        raise InputError(f"{path}: has {raw}, but {expected} are needed: {remedy}")

    def scale(self, pixels: NDArray[Any]) -> Pixels:
        """Convert stored values to units of 0..255: uint8 as it is, others as unclipped float32."""
        if self.is_bytes:
            return pixels
        low, high = self.value_range
        return (pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))

    def like(self, image: NDArray[np.uint8]) -> Pixels:
        """Convert an 8-bit image (H, W, 3) to this format, to try a network on it.

        Further channels repeat the colors.
        """
        chosen: Pixels = image[..., np.arange(self.channels) % 3].astype(self.network_dtype)
        return chosen

    def to_json(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "dtype": self.dtype,
            "value_range": [float(end) for end in self.value_range],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PixelFormat:
        """Read the output of `to_json`. Raises KeyError, TypeError or ValueError otherwise."""
        low, high = data["value_range"]
        return cls(int(data["channels"]), str(data["dtype"]), (float(low), float(high)))


RGB = PixelFormat()
"""8-bit RGB images."""


def to_8_bits(raw: RawImage, value_range: tuple[float, float]) -> RawImage:
    """Map stored values of any type linearly to 8 bits.

    Args:
        raw: The image; 8-bit images are returned unchanged.
        value_range: The values that become 0 and 255; those beyond are clipped.
    """
    if raw.dtype == "uint8":
        return raw
    low, high = value_range
    scaled = (raw.pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    levels = np.rint(np.nan_to_num(scaled, nan=0.0)).clip(0, 255).astype(np.uint8)
    return replace(raw, pixels=levels)


def as_shown(pixels: Pixels) -> NDArray[np.uint8]:
    """Convert an image (H, W, C) in units of 0..255 to 8-bit RGB (H, W, 3) for display.

    Shows the first three channels, or the first as gray if there are fewer. Values are clipped.
    """
    chosen = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)
    if chosen.dtype != np.uint8:
        chosen = np.rint(chosen).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(chosen)
