"""Read mask files: the numbers that a file stores, and what is needed to read them by color."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from pixelwise.data.array_files import as_mask
from pixelwise.data.image_decoding import (
    MASK_FORMATS,
    BeyondPillowError,
    check_tiff_tags,
    is_jpeg_tiff,
    is_white_zero,
    jpeg_mask,
    open_image,
    pnm_maxval,
    raw_mode,
    unscale,
)
from pixelwise.data.tiff_reading import StoredTiff, read_tiff
from pixelwise.errors import InputError
from pixelwise.storage.mirror import when_present

_TOPS = {"1": 1, "L;2": 3, "L;4": 15}
"""Largest value of the raw modes that Pillow multiplies to reach 255."""
MAX_WHITE_IS_ZERO = 127
"""Larger values in a file whose zero is white are more likely tones than class numbers."""


class MaskReading(StrEnum):
    """What identifies the class of a pixel in a mask file."""

    VALUES = "values"
    COLORS = "colors"
    TONES = "tones"


@dataclass(frozen=True)
class StoredMask:
    """The content of a mask file.

    Attributes:
        values: (H, W) the stored values of an index or palette mask: uint8, or uint16 if there is a
            value over 255; or (H, W, 3) the colors of an RGB mask.
        palette: (N, 3) the color of each value, or None.
        top: The value of a gray mask that is shown as white.
    """

    values: NDArray[Any]
    palette: NDArray[np.uint8] | None = None
    top: int = 255

    def read_by(self, reading: MaskReading, path: Path) -> NDArray[Any]:
        """Return the stored values, the RGB colors (H, W, 3), or the gray tones 0..255 (H, W).

        Raises:
            InputError: If a value is not in the palette.
        """
        if reading is MaskReading.VALUES:
            return self.values
        if self.values.ndim == 3:
            colors = self.values
        elif self.palette is not None:
            if self.values.max(initial=0) >= len(self.palette):
                raise InputError(
                    f"{path}: value {self.values.max()} is not in its palette of "
                    f"{len(self.palette)} colors: export the mask again"
                )
            colors = self.palette[self.values]
        else:
            colors = self.gray_tones(self.values)[..., None].repeat(3, axis=-1)
        return colors if reading is MaskReading.COLORS else colors[..., 0].copy()

    def gray_tones(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the tones of gray values of up to 8 bits."""
        tones = np.rint(values.astype(np.float32) * np.float32(255 / self.top))
        return np.asarray(tones, dtype=np.uint8)


@when_present
def read_stored_mask(path: Path) -> StoredMask:
    """Decode a mask file.

    The values are the numbers in the file: 0 and 1 for 1 bit, 0 to 15 for 4 bits. A TIFF with
    other channels than gray or RGB is one-hot: one channel per class.

    Raises:
        InputError: As `image_files.read_raw`; for JPEG, whose compression blurs the class values;
            for transparent pixels; and for gray files whose zero is white, if it is unclear whether
            their numbers or their tones are meant.
    """
    if path.suffix.lower() in {".jpg", ".jpeg", ".jfif"}:
        raise jpeg_mask(path)
    try:
        with open_image(path, MASK_FORMATS, decode=False) as image:
            if image.format == "TIFF":
                check_tiff_tags(image)
                if is_jpeg_tiff(image):
                    raise jpeg_mask(path)
            if image.mode in {"L", "RGB"} and raw_mode(image).endswith("X"):
                raise BeyondPillowError  # Pillow would drop a channel
            return _decode(path, image)
    except BeyondPillowError:
        return _from_tiff(path, read_tiff(path))


def _from_tiff(path: Path, tiff: StoredTiff) -> StoredMask:
    if tiff.lossy:
        raise jpeg_mask(path)
    stored = tiff.upright()
    values = as_mask(stored[..., 0] if stored.shape[2] == 1 else stored, path)
    if tiff.white_is_zero:
        _check_white_is_zero(path, values, bits=tiff.bits)
    return StoredMask(values, tiff.palette, 2 ** min(8, tiff.bits) - 1)


def _decode(path: Path, image: ImageFile.ImageFile) -> StoredMask:
    raw, inverted = raw_mode(image), is_white_zero(image)
    top = next((_TOPS[name] for name in _TOPS if raw.startswith(name)), 255)
    maxval = pnm_maxval(image)
    image.load()
    mode, pixels = image.mode, np.asarray(image)
    if mode in {"LA", "PA", "RGBA"}:
        if not (pixels[..., -1] == 255).all():
            if image.format == "TIFF":  # the channel may not be alpha
                raise BeyondPillowError
            raise InputError(
                f"{path}: the mask has transparent pixels, whose class is not clear: save the mask "
                "without an alpha channel"
            )
        mode, pixels = mode[:-1], pixels[..., :-1]
        pixels = pixels if mode == "RGB" else pixels[..., 0]
    if mode == "RGB":
        return StoredMask(pixels)
    if mode == "P":
        palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        return StoredMask(pixels, palette)
    if mode == "1":
        values = pixels.astype(np.uint8)
        return StoredMask(_stored_tones(path, values, 1, inverted=inverted), top=1)
    if mode == "L":
        values = pixels if top == 255 else pixels // np.uint8(255 // top)
        if maxval is not None and maxval < 255:
            top, values = maxval, unscale(pixels, maxval, 255)
        return StoredMask(_stored_tones(path, values, top, inverted=inverted), top=top)
    if mode in {"I", "I;16", "I;16B", "I;16L", "I;16N"}:
        numbers = pixels if maxval is None else unscale(pixels, maxval, 65535)
        return StoredMask(as_mask(numbers, path))
    raise InputError(
        f"{path}: mode {mode} is not supported: masks are index, palette or RGB images: "
        "save it as an 8-bit PNG"
    )


def _stored_tones(
    path: Path, values: NDArray[np.uint8], top: int, *, inverted: bool
) -> NDArray[np.uint8]:
    """Return the stored numbers of a gray mask: Pillow inverts files whose zero is white."""
    if not inverted:
        return values
    stored = (np.uint8(top) - values).astype(np.uint8)
    _check_white_is_zero(path, stored, bits=top.bit_length())
    return stored


def _check_white_is_zero(path: Path, stored: NDArray[Any], *, bits: int) -> None:
    """Raise InputError if a file whose zero is white may mean its tones instead of its numbers."""
    highest = int(stored.max(initial=0))
    if bits == 1 or highest > MAX_WHITE_IS_ZERO:
        shown = 2**bits - 1 - highest
        raise InputError(
            f"{path}: zero is white in this file: its value {highest} is shown as {shown}, and "
            "either number could be the class: save the mask as PNG"
        )
