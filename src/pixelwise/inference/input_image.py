"""Convert what callers predict, a path, a PIL image or an array, to pixels."""

from __future__ import annotations

import shlex
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pixelwise.data.channel_statistics import find_range
from pixelwise.data.image_decoding import decoding_errors, has_16_bits, omits_segments, upright
from pixelwise.data.image_files import read_raw
from pixelwise.data.pixel_format import RGB, PixelFormat, Pixels, RawImage, to_8_bits
from pixelwise.errors import InputError

ImageLike = str | Path | Image.Image | NDArray[Any]

_WITHOUT_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_CONVERTED_TO_RGB = frozenset({"P", "PA", "RGBX", "CMYK", "YCbCr", "HSV"})
_loading = threading.Lock()


def as_pixels(
    image: ImageLike,
    pixels: PixelFormat = RGB,
    *,
    value_range: tuple[float, float] | None = None,
    bundle: str = "",
) -> Pixels:
    """Read or convert an image to (H, W, C) in units of 0..255, upright.

    Args:
        image: A path, a PIL image or an array, as for `Predictor.__call__`. Its memory is not
            shared with the result.
        pixels: The format that the image must have.
        value_range: The stored values of a file of more than 8 bits that become 0 and 255.
        bundle: The file of the network, for the command that a message gives.

    Raises:
        InputError: If the image cannot be read or has another format.
    """
    remedy = "" if pixels == RGB else "give images like those that the network was trained on"
    if isinstance(image, str | Path):
        path = Path(image)
        raw = read_raw(path)
        if pixels.is_bytes and raw.dtype != pixels.dtype and raw.channels == pixels.channels:
            if value_range is None:
                remedy = _map_to_8_bits(raw, path, bundle)
            else:
                raw = to_8_bits(raw, value_range)
        return pixels.scale(pixels.select(raw, path, remedy=remedy))
    if isinstance(image, Image.Image):
        name = f"image of mode {image.mode}"
        remedy = remedy or "convert its values to 0..255, and the image to 8 bits"
        raw = _from_pillow(image, name)
        return pixels.scale(np.array(pixels.select(raw, name, remedy=remedy)))
    return pixels.scale(_checked(image, pixels))


def _map_to_8_bits(raw: RawImage, path: Path, bundle: str) -> str:
    """Return the remedy for an image of more than 8 bits, with a range that fits its values."""
    low, high = find_range(raw.dtype, raw.pixels.astype(np.float32).reshape(-1))[0]
    if not bundle:
        return f"save it as an 8-bit PNG, or pass value_range=({low:g}, {high:g})"
    command = f"pixelwise predict {shlex.quote(bundle)} {shlex.quote(str(path))}"
    return f"`{command} --value-range={low:g},{high:g}` maps its values to 8 bits"


def _checked(image: object, pixels: PixelFormat) -> NDArray[Any]:
    """Return a copy of an array of this format. Raises InputError for anything else."""
    if (
        not isinstance(image, np.ndarray)
        or str(image.dtype.newbyteorder("=")) != pixels.dtype
        or image.ndim != 3
        or image.shape[2] != pixels.channels
        or 0 in image.shape
    ):
        shape = getattr(image, "shape", None)
        colors = " in RGB" if pixels.channels == 3 else ""
        raise InputError(
            f"image of type {type(image).__name__}, {getattr(image, 'dtype', 'no dtype')}, shape "
            f"{shape}: give a path, a PIL image or a {pixels.dtype} array of shape (H, W, "
            f"{pixels.channels}){colors}"
        )
    if np.ma.is_masked(image):
        raise InputError("image is an array with masked values: replace them, as with filled(0)")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise InputError("image has values that are not finite: replace them with a number")
    return np.array(image, dtype=pixels.dtype, order="C")


def _from_pillow(image: Image.Image, name: str) -> RawImage:
    """Return the values of a PIL image, upright. Raises InputError if Pillow has changed them."""
    drops_bits = isinstance(image, ImageFile.ImageFile) and has_16_bits(image)
    if drops_bits and not image.mode.startswith("I;16"):
        raise InputError(
            f"{name}: its file has 16 bits per channel, of which Pillow drops 8: give the path"
        )
    if isinstance(image, ImageFile.ImageFile) and omits_segments(image):
        raise InputError(
            f"{name}: its TIFF file omits empty strips or tiles, which Pillow misreads: give the "
            "path"
        )
    with _loading, decoding_errors(Path(name)):  # PIL images are not safe to load from two threads
        image.load()
        image = upright(image)
    if 0 in image.size:
        raise InputError(f"{name}: has no pixels (width x height {image.width}x{image.height})")
    image = image.convert(_WITHOUT_PREMULTIPLIED.get(image.mode, image.mode))
    mode = image.mode
    if mode in _CONVERTED_TO_RGB:
        return RawImage(np.asarray(image.convert("RGB")))
    if mode == "1":
        image = image.convert("L")
    if mode in {"RGB", "RGBA", "LA"}:
        return RawImage(np.asarray(image), alpha=mode != "RGB")
    if mode in {"1", "L"}:
        return RawImage(np.asarray(image)[..., None])
    if mode.startswith("I;16"):
        return RawImage(np.asarray(image).astype(np.uint16)[..., None])
    if mode in {"I", "F"}:
        values = np.asarray(image).astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{name}: has values that are not finite: replace them with a number")
        return RawImage(values[..., None])
    raise InputError(f"{name}: is not supported: convert it to RGB")
