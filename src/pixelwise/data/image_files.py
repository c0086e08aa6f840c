"""Images and masks, from files to arrays and back; nothing else decodes or encodes them.

Pillow does the decoding, behind a list of formats (`opening`), because OpenCV returns a half-gray
image for a truncated JPEG. What Pillow cannot decode of TIFF is `tiff`'s, arrays are `arrays`'.
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

from pixelwise.data import image_decoding
from pixelwise.data.array_files import ARRAY_SUFFIXES, as_mask, read_array
from pixelwise.data.image_decoding import (
    FORMAT_OF_SUFFIX,
    IMAGE_FORMATS,
    MASK_FORMATS,
    BeyondPillowError,
    decoded_as,
    has_16_bits,
    opened,
    orientation_of,
    raw_mode,
    readable,
    turned,
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
"""Raw modes of channels that are neither color nor opacity, which Pillow drops: read as if."""


def read_image(path: Path, pixels: PixelFormat = RGB) -> Pixels:
    """Decode an image to (H, W, C) in units of 0..255, turned as its EXIF orientation says.

    pixels: what is expected; by default 8 bits and RGB: gray, palette and CMYK images become RGB,
    an alpha channel is left out. Raises InputError as `read_raw`, and for an image of another
    type or other channels.
    """
    return pixels.scale(pixels.select(read_raw(path), path))


def read_raw(path: Path) -> RawImage:
    """Decode an image to the numbers that it holds, turned as its EXIF orientation says.

    Palette, CMYK and 1-bit images become RGB or gray of 8 bits. Arrays (.npy) are (H, W) or
    (H, W, C). Raises InputError for a file that is missing, empty, truncated, of another format,
    animated or larger than MAX_PIXELS, and for numbers that are not finite.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return RawImage(_finite(read_array(path), path))
    try:
        with opened(path, IMAGE_FORMATS, decode=False, deep=True) as image:
            raw = _decoded(path, image)
    except BeyondPillowError:
        raw = _read_tiff(path)
    return replace(raw, pixels=_finite(raw.pixels, path))


def _read_tiff(path: Path) -> RawImage:
    """What is beyond Pillow, its numbers of any type."""
    with readable(path):
        stored, alpha, orientation = read_tiff(path, max_pixels=image_decoding.MAX_PIXELS)
    return RawImage(np.ascontiguousarray(turned(stored, orientation)), alpha, doubtful=alpha)


def _finite(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    """`pixels` as one of DTYPES. Raises InputError where they are not finite numbers."""
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):
        wide = pixels.astype(np.float32)
    bad = ~np.isfinite(wide)
    if bad.any():
        row, column, channel = (int(place) for place in np.argwhere(bad)[0])
        raise InputError(
            f"{path}: holds {pixels[row, column, channel]} at row {row}, column {column}, channel "
            f"{channel}, in all {int(bad.sum())} values that are not finite: fill them with a "
            "number, and ignore such pixels in the mask"
        )
    return wide


def _decoded(path: Path, image: ImageFile.ImageFile) -> RawImage:
    """The numbers of an opened image.

    Raises BeyondPillowError where Pillow would change them.
    """
    mode, stored, tiff = image.mode, raw_mode(image), image.format == "TIFF"
    if tiff:
        tags = image.tag_v2  # type: ignore[attr-defined]
        samples, forms = tags.get(_SAMPLES, 1), tags.get(_SAMPLE_FORMAT, (1,))
        one = samples == 1 and (mode in {"I", "F"} or mode.startswith("I;16"))
        planes = tags.get(_PLANES, 1) == 2 and has_16_bits(image)
        if not one and (samples > 4 or planes or set(forms) != {1}):
            raise BeyondPillowError
    if has_16_bits(image) and not mode.startswith("I;16"):
        return _sixteen_bits(path, image)
    if stored in _UNNAMED:
        wider = _UNNAMED[stored]
        return RawImage(decoded_as(path, wider, wider))
    image.load()
    picture = upright(image)
    if mode.startswith("I;16"):
        return RawImage(np.asarray(picture).astype(np.uint16)[..., None])
    if mode in {"I", "F"}:
        values = np.asarray(picture)
        if stored == "I;32N" and tiff and forms[0] == 1:  # Pillow takes them for signed ones
            values = values.view(np.uint32)
        return RawImage(values[..., None])
    if mode in {"RGBA", "LA"}:
        return RawImage(np.asarray(picture), alpha=True, doubtful=tiff)
    if mode in {"1", "L"}:
        return RawImage(np.asarray(picture.convert("L"))[..., None])
    if mode not in _EIGHT_BIT and not mode.startswith("YCbCr"):
        raise InputError(
            f"{path}: has mode {mode}, not 8 bits a channel: save it as an 8-bit RGB PNG"
        )
    return RawImage(np.asarray(picture if mode == "RGB" else picture.convert("RGB")))


def _sixteen_bits(path: Path, image: ImageFile.ImageFile) -> RawImage:
    """A color image of 16 bits a channel, for which Pillow has no mode.

    Its raw modes keep one byte of each two, which one by the order that they are told: decoded in
    both orders all bytes are there. Of gray with opacity it knows one order only; there the four
    bytes of a pixel are read as four channels.
    """
    name, _, order = raw_mode(image).partition(";16")
    if name == "LA" and order == "B":
        four = decoded_as(path, "RGBA", "RGBA").astype(np.uint16)
        return RawImage(four[..., 0::2] << 8 | four[..., 1::2], alpha=True)
    name = _UNNAMED.get(name, name)
    if name not in {"RGB", "RGBA"} or order not in {"L", "B", "N"}:
        raise BeyondPillowError
    if order == "N":
        order = sys.byteorder[0].upper()
    other = "B" if order == "L" else "L"
    high, low = (decoded_as(path, name, f"{name};16{o}").astype(np.uint16) for o in (order, other))
    tiff = image.format == "TIFF"
    alpha = image.mode == "RGBA"
    return RawImage(high << 8 | low, alpha=alpha, doubtful=alpha and tiff)


def read_mask(path: Path) -> NDArray[Any]:
    """Decode a mask: (H, W) with the stored numbers (index or palette), or (H, W, 3) if it is RGB.

    A palette mask gives its indices, not its colors; a 1-bit mask gives 0 and 1. The numbers are
    uint8, or uint16 where a 16-bit gray mask holds one over 255. TIFF of other channels than gray
    and RGB has one a class (one-hot). Raises InputError like `read_image`, and for JPEG, whose
    compression blurs the class values.
    """
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        raise InputError(
            f"{path}: a JPEG mask has blurred class values at every edge: export the masks as PNG"
        )
    try:
        with opened(path, MASK_FORMATS, decode=False) as image:
            if image.mode in {"L", "RGB"} and raw_mode(image).endswith("X"):  # a channel is dropped
                raise BeyondPillowError
            image.load()
            return _mask_numbers(path, image)
    except BeyondPillowError:
        return as_mask(_read_tiff(path).pixels, path)


def _mask_numbers(path: Path, image: Image.Image) -> NDArray[Any]:
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
            if image.format == "TIFF":  # or it is no opacity, whatever the file calls it
                raise BeyondPillowError
            raise InputError(
                f"{path}: has transparent pixels, which class is not clear: save the mask "
                "without an alpha channel"
            )
        return pixels[..., :3]
    raise InputError(
        f"{path}: has mode {image.mode}: masks are index, palette or RGB images: save it as "
        "an 8-bit PNG"
    )


def mask_palette(path: Path) -> NDArray[np.uint8] | None:
    """The colors (N, 3) of a palette mask, or None if the mask has no palette."""
    with suppress(BeyondPillowError), opened(path, MASK_FORMATS) as image:
        if image.mode == "P" and image.palette is not None:
            return np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    return None


def turned_by_exif(path: Path) -> bool:
    """Whether an EXIF orientation swaps width and height of this image."""
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return False
    # Not decoded, for decoding turns a TIFF already.
    header = opened(path, IMAGE_FORMATS, decode=False, deep=True)
    with suppress(BeyondPillowError), header as image:
        return orientation_of(image) in {5, 6, 7, 8}
    return False


def write_mask(path: Path, mask: NDArray[np.uint8], *, palette: bytes) -> None:
    """Write a mask (H, W) as a palette PNG; `palette` is 768 bytes of RGB. Atomic."""
    with atomic(path) as side:
        side.write_bytes(encode_palette(mask, palette))


def write_image(path: Path, image: Image.Image | NDArray[np.uint8]) -> None:
    """Write RGB, (H, W, 3) or a PIL image, as PNG. Atomic."""
    with atomic(path) as side:
        side.write_bytes(encode_rgb(np.asarray(image)))


def list_images(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The images directly in `folder`, by name; hidden files are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )
