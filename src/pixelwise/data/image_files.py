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

from pixelwise.data.array_files import ARRAY_SUFFIXES, as_mask, read_array
from pixelwise.data.folder_listing import list_files
from pixelwise.data.image_decoding import (
    FORMAT_OF_SUFFIX,
    IMAGE_FORMATS,
    MASK_FORMATS,
    BeyondPillowError,
    apply_orientation,
    decode_as,
    decoding_errors,
    exif_orientation,
    has_16_bits,
    open_image,
    raw_mode,
    upright,
)
from pixelwise.data.pixel_format import RGB, PixelFormat, Pixels, RawImage
from pixelwise.data.png_encoding import encode_palette, encode_rgb
from pixelwise.data.tiff_reading import read_tiff
from pixelwise.errors import InputError
from pixelwise.file_io import atomic

PHOTO_SUFFIXES = frozenset(FORMAT_OF_SUFFIX)
IMAGE_SUFFIXES = PHOTO_SUFFIXES | ARRAY_SUFFIXES
MASK_SUFFIXES = frozenset(s for s, name in FORMAT_OF_SUFFIX.items() if name in MASK_FORMATS)

_EIGHT_BIT = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK"})
_SAMPLES, _PLANES, _SAMPLE_FORMAT = 277, 284, 339  # tags of TIFF 6.0
_UNNAMED = {"RGBX": "RGBA", "LX": "LA"}
"""Raw modes with a channel that is neither color nor alpha, which Pillow drops: read as these."""


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


def read_raw(path: Path) -> RawImage:
    """Decode an image to its stored values, and apply its EXIF orientation.

    Palette, CMYK and 1-bit images become 8-bit RGB or gray. Arrays (.npy) are (H, W) or (H, W, C).

    Raises:
        InputError: If the file is missing, empty, truncated, of another format, animated or larger
            than MAX_PIXELS, or holds values that are not finite.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return RawImage(_finite(read_array(path), path))
    try:
        with open_image(path, IMAGE_FORMATS, decode=False, deep=True) as image:
            raw = _decode(path, image)
    except BeyondPillowError:
        raw = _read_tiff(path)
    return replace(raw, pixels=_finite(raw.pixels, path))


def _read_tiff(path: Path) -> RawImage:
    """Read a TIFF that Pillow cannot; its values may have any type."""
    with decoding_errors(path):
        stored, alpha, orientation = read_tiff(path)
    return RawImage(apply_orientation(stored, orientation), alpha, unsure_alpha=alpha)


def _finite(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    """Convert to one of DTYPES. Raises InputError for values that are not finite."""
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
    if is_tiff:
        tags = image.tag_v2  # type: ignore[attr-defined]
        samples, formats = tags.get(_SAMPLES, 1), tags.get(_SAMPLE_FORMAT, (1,))
        gray = samples == 1 and (mode in {"I", "F"} or mode.startswith("I;16"))
        planes = tags.get(_PLANES, 1) == 2 and has_16_bits(image)
        if not gray and (samples > 4 or planes or set(formats) != {1}):
            raise BeyondPillowError
    if has_16_bits(image) and not mode.startswith("I;16"):
        return _decode_16_bit_color(path, image)
    if stored in _UNNAMED:
        full = _UNNAMED[stored]
        return RawImage(decode_as(path, full, full))
    image.load()
    upright_image = upright(image)
    if mode.startswith("I;16"):
        return RawImage(np.asarray(upright_image).astype(np.uint16)[..., None])
    if mode in {"I", "F"}:
        values = np.asarray(upright_image)
        if stored == "I;32N" and is_tiff and formats[0] == 1:  # Pillow reads them as signed
            values = values.view(np.uint32)
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
    """Decode a mask.

    A palette mask gives its indices, not its colors; a 1-bit mask gives 0 and 1. A TIFF with other
    channels than gray or RGB is one-hot: one channel per class.

    Returns:
        (H, W) the stored values of an index or palette mask: uint8, or uint16 if a 16-bit mask
        holds a value over 255; or (H, W, 3) the colors of an RGB mask.

    Raises:
        InputError: As `read_raw`, and for JPEG, whose compression blurs the class values.
    """
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        raise InputError(
            f"{path}: JPEG compression blurs the class values at edges: export the masks as PNG"
        )
    try:
        with open_image(path, MASK_FORMATS, decode=False) as image:
            if image.mode in {"L", "RGB"} and raw_mode(image).endswith("X"):
                raise BeyondPillowError  # Pillow would drop a channel
            image.load()
            return _mask_values(path, image)
    except BeyondPillowError:
        return as_mask(_read_tiff(path).pixels, path)


def _mask_values(path: Path, image: Image.Image) -> NDArray[Any]:
    if image.mode in {"P", "L"}:
        return np.asarray(image)
    if image.mode in {"I;16", "I;16B", "I;16L", "I;16N"}:
        deep = np.asarray(image).astype(np.uint16)
        return deep if deep.max(initial=0) > 255 else deep.astype(np.uint8)
    if image.mode == "1":
        return np.asarray(image, dtype=np.uint8)
    if image.mode in {"RGB", "RGBA"}:
        pixels = np.asarray(image)
        if image.mode == "RGBA" and not (pixels[..., 3] == 255).all():
            if image.format == "TIFF":  # the channel may not be alpha
                raise BeyondPillowError
            raise InputError(
                f"{path}: the mask has transparent pixels, whose class is not clear: save the mask "
                "without an alpha channel"
            )
        return pixels[..., :3]
    raise InputError(
        f"{path}: mode {image.mode} is not supported: masks are index, palette or RGB images: "
        "save it as an 8-bit PNG"
    )


def mask_palette(path: Path) -> NDArray[np.uint8] | None:
    """Return the colors (N, 3) of a palette mask, or None if the mask has no palette."""
    with suppress(BeyondPillowError), open_image(path, MASK_FORMATS) as image:
        if image.mode == "P" and image.palette is not None:
            return np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    return None


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
