"""Read and write image and mask files; all decoding and encoding goes through this module.

Pillow decodes, restricted to a list of formats (`image_decoding`), because OpenCV returns a
half-gray image for a truncated JPEG. `tiff_reading` decodes the TIFF files that Pillow cannot, and
`array_files` reads NumPy arrays.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pixelwise.data.array_files import ARRAY_SUFFIXES, read_array
from pixelwise.data.folder_listing import list_files
from pixelwise.data.image_decoding import (
    FORMAT_OF_SUFFIX,
    IMAGE_FORMATS,
    MASK_FORMATS,
    BeyondPillowError,
    check_tiff_tags,
    decode_as,
    exif_orientation,
    has_16_bits,
    has_extra_samples,
    open_image,
    pnm_maxval,
    raw_mode,
    sample_formats,
    unscale,
    upright,
)
from pixelwise.data.mask_files import read_stored_mask
from pixelwise.data.pixel_format import RGB, PixelFormat, Pixels, RawImage
from pixelwise.data.png_encoding import encode_palette, encode_rgb
from pixelwise.data.tiff_reading import read_tiff
from pixelwise.errors import InputError
from pixelwise.file_io import atomic
from pixelwise.storage.mirror import when_present

PHOTO_SUFFIXES = frozenset(FORMAT_OF_SUFFIX)
IMAGE_SUFFIXES = PHOTO_SUFFIXES | ARRAY_SUFFIXES
MASK_SUFFIXES = frozenset(s for s, name in FORMAT_OF_SUFFIX.items() if name in MASK_FORMATS)

_EIGHT_BIT = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK"})
_UNNAMED = {"RGBX": "RGBA", "LX": "LA"}
"""Raw modes with a channel that is neither color nor alpha, which Pillow drops: read as these."""

_PREMULTIPLIED = "RGBa"  # a raw mode: Pillow would divide the colors by the fourth channel


def read_image(path: Path, pixels: PixelFormat = RGB) -> Pixels:
    """Decode an image, and apply its EXIF orientation.

    Args:
        path: The file.
        pixels: The expected format. The default is 8-bit RGB: gray, palette and CMYK images become
            RGB, and an alpha channel is dropped.

    Returns:
        (H, W, C) in units of 0..255.

    Raises:
        InputError: As `read_raw`, and if the image has another type or other channels.
    """
    return pixels.scale(pixels.select(read_raw(path), path))


@when_present
def read_raw(path: Path) -> RawImage:
    """Decode an image to its stored values, and apply its EXIF orientation.

    Palette, CMYK and 1-bit images become 8-bit RGB or gray. Arrays (.npy) are (H, W) or (H, W, C).

    Raises:
        InputError: If the file is missing, empty, truncated, of another format, animated or larger
            than MAX_PIXELS, or holds values that are not finite.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return RawImage(check_finite(read_array(path), path))
    try:
        with open_image(path, IMAGE_FORMATS, decode=False, deep=True) as image:
            raw = _decode(path, image)
    except BeyondPillowError:
        tiff = read_tiff(path)
        raw = RawImage(tiff.as_shown(), tiff.alpha, unsure_alpha=tiff.alpha)
    return replace(raw, pixels=check_finite(raw.pixels, path))


def check_finite(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    """Convert pixels (H, W, C) to one of DTYPES.

    Raises:
        InputError: If a value is not finite.
    """
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):
        wide = pixels.astype(np.float32)
    bad = ~np.isfinite(wide)
    if bad.any():
        row, column, channel = (int(place) for place in np.argwhere(bad)[0])
        raise InputError(
            f"{path}: the value at row {row}, column {column}, channel {channel} is "
            f"{pixels[row, column, channel]}, and {int(bad.sum())} values in total are not finite: "
            "replace them by a number, and mark such pixels as ignored in the mask"
        )
    return wide


def _decode(path: Path, image: ImageFile.ImageFile) -> RawImage:
    """Decode an opened image. Raises BeyondPillowError if Pillow would change the values."""
    mode, stored, is_tiff = image.mode, raw_mode(image), image.format == "TIFF"
    maxval = pnm_maxval(image)
    if is_tiff:
        check_tiff_tags(image)
    if has_16_bits(image) and not mode.startswith("I"):
        return _decode_16_bit_color(path, image)
    if stored in _UNNAMED and (not is_tiff or has_extra_samples(image)):
        full = _UNNAMED[stored]
        return RawImage(decode_as(path, full, full))
    if stored == _PREMULTIPLIED and is_tiff:  # programs write this label whatever the channel holds
        return RawImage(decode_as(path, "RGBA", "RGBA"), alpha=True, unsure_alpha=True)
    image.load()
    upright_image = upright(image)
    if mode.startswith("I;16"):
        return RawImage(np.asarray(upright_image).astype(np.uint16)[..., None])
    if mode in {"I", "F"}:
        values = np.asarray(upright_image)
        if stored == "I;32N" and is_tiff and sample_formats(image)[0] == 1:
            values = values.view(np.uint32)  # Pillow reads them as signed
        if image.format == "PPM" and mode == "I":
            values = unscale(values, maxval or 65535, 65535)
        return RawImage(values[..., None])
    if mode in {"RGBA", "LA"}:
        return RawImage(np.asarray(upright_image), alpha=True, unsure_alpha=is_tiff)
    if mode in {"1", "L"}:
        return RawImage(np.asarray(upright_image.convert("L"))[..., None])
    if mode not in _EIGHT_BIT and not mode.startswith("YCbCr"):
        raise InputError(f"{path}: mode {mode} is not supported: save it as an 8-bit RGB PNG")
    rgb = upright_image if mode == "RGB" else upright_image.convert("RGB")
    return RawImage(np.asarray(rgb))


def _decode_16_bit_color(path: Path, image: ImageFile.ImageFile) -> RawImage:
    """Decode a color image with 16 bits per channel, for which Pillow has no mode.

    Pillow's raw modes keep one of the two bytes of a value, depending on the given byte order:
    decoding in both orders gives both bytes. Gray with alpha has one byte order only; there the
    four bytes of a pixel are read as four channels.
    """
    name, _, order = raw_mode(image).partition(";16")
    if name == "LA" and order == "B":
        four = decode_as(path, "RGBA", "RGBA").astype(np.uint16)
        return RawImage(four[..., 0::2] << 8 | four[..., 1::2], alpha=True)
    name = _UNNAMED.get(name, name)
    if name not in {"RGB", "RGBA"} or order not in {"L", "B", "N"}:
        raise BeyondPillowError
    if order == "N":
        order = sys.byteorder[0].upper()
    other = "B" if order == "L" else "L"
    high, low = (decode_as(path, name, f"{name};16{o}").astype(np.uint16) for o in (order, other))
    alpha = image.mode == "RGBA"
    return RawImage(high << 8 | low, alpha, unsure_alpha=alpha and image.format == "TIFF")


def read_mask(path: Path) -> NDArray[Any]:
    """Read the stored values or the RGB colors of a mask: see `mask_files.read_stored_mask`."""
    return read_stored_mask(path).values


def mask_palette(path: Path) -> NDArray[np.uint8] | None:
    """Return the colors (N, 3) of a palette mask, or None if the mask has no palette."""
    return read_stored_mask(path).palette


@when_present
def swapped_by_exif(path: Path) -> bool:
    """Return whether the EXIF orientation swaps width and height of this image."""
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return False
    # Without decoding, because decoding already rotates a TIFF.
    header = open_image(path, IMAGE_FORMATS, decode=False, deep=True)
    with suppress(BeyondPillowError), header as image:
        return exif_orientation(image) in {5, 6, 7, 8}
    return False


def write_mask(path: Path, mask: NDArray[np.uint8], *, palette: bytes) -> None:
    """Write a mask (H, W) as a palette PNG, atomically; `palette` is 768 bytes of RGB."""
    with atomic(path) as side:
        side.write_bytes(encode_palette(mask, palette))


def write_image(path: Path, image: Image.Image | NDArray[np.uint8]) -> None:
    """Write RGB, (H, W, 3) or a PIL image, as PNG, atomically."""
    with atomic(path) as side:
        side.write_bytes(encode_rgb(np.asarray(image)))


def list_images(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the image files directly in `folder` by name, without hidden files."""
    return list_files(folder, suffixes)
