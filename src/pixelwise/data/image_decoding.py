"""Open images with Pillow; everything that can be wrong with a file becomes an InputError."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pixelwise.errors import InputError
from pixelwise.file_io import check_regular

IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
MASK_FORMATS = ("PNG", "BMP", "TIFF")
FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}

MAX_PIXELS = 178_956_970
"""Pillow's own limit, enforced here too for programs that raise it."""

_SIXTEEN_BIT = re.compile(r"(?<!BGR);16")  # Pillow's raw modes; BGR;16 is 5, 6 and 5 bits
_ORIENTATION = 0x0112  # EXIF 2.3
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
logging.getLogger("PIL").addHandler(logging.NullHandler())  # it logs errors that it also raises

_BITS, _PLANES = 258, 284  # tags of TIFF 6.0


class BeyondPillowError(Exception):
    """A TIFF that Pillow cannot read, or would change."""


@contextmanager
def open_image(
    path: Path, formats: tuple[str, ...], *, decode: bool = True, deep: bool = False
) -> Iterator[ImageFile.ImageFile]:
    """Open and decode an image.

    Args:
        path: The file.
        formats: The allowed formats, by Pillow's names.
        decode: Whether to decode the pixels.
        deep: Whether to accept color images with more than 8 bits per channel. 16-bit gray images
            are always accepted.

    Raises:
        InputError: For everything that can be wrong with the file.
        BeyondPillowError: If `tiff_reading` has to read it.
    """
    with decoding_errors(path, formats):
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not an image: give a file")
        check_regular(path)
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty (0 bytes): restore the file or remove it")
        with warnings_silenced, Image.open(path, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise too_large(path)
            # The further images of an MPO, which some cameras write as JPEG, are previews.
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                if deep and image.format == "TIFF":  # pages may be channels
                    raise BeyondPillowError
                raise InputError(
                    f"{path}: the file has several images (animation or pages): save a single one"
                )
            # Pillow has no mode for 16-bit color: it would drop one byte of each value.
            if not deep and not image.mode.startswith("I;16") and has_16_bits(image):
                raise InputError(
                    f"{path}: 16 bits per channel are not supported here: save it as an 8-bit PNG"
                )
            if decode:
                image.load()
            yield image


def too_large(path: Path) -> InputError:
    return InputError(
        f"{path}: the image exceeds the limit of {MAX_PIXELS} pixels: split it into smaller "
        "images; `predict --large` takes TIFF files of any size"
    )


@contextmanager
def decoding_errors(path: Path, formats: tuple[str, ...] = IMAGE_FORMATS) -> Iterator[None]:
    """Turn whatever decoding `path` raises into an InputError."""
    try:
        yield
    except (InputError, BeyondPillowError):
        raise
    except UnidentifiedImageError as error:
        if _is_tiff(path):
            raise BeyondPillowError from error
        allowed = ", ".join(formats)
        raise InputError(
            f"{path}: is not an image that can be read (supported formats are {allowed}): convert "
            "it or remove it"
        ) from error
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist: check the path") from error
    except MemoryError as error:
        raise InputError(
            f"{path}: the image does not fit into memory: split it into smaller images"
        ) from error
    except Exception as error:  # damaged bytes can raise anything in a decoder
        if isinstance(error, OSError) and error.errno is not None:  # not from Pillow
            raise InputError(
                f"{path}: cannot be read ({error.strerror}): check the path and its permissions"
            ) from error
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(
            f"{path}: is damaged or cut off ({reason}): restore the file or remove it"
        ) from error


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


class _WarningsSilenced:
    """Silence Pillow's harmless warnings about odd metadata, in any number of threads.

    `warnings.catch_warnings` replaces the filters of the whole process: two threads that leave it
    in another order than they entered would silence all later warnings of the program.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.active = 0
        self.filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            if self.active == 0:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.simplefilter("ignore")
            self.active += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.active -= 1
            if self.active == 0:
                self.filters.__exit__(None, None, None)


warnings_silenced = _WarningsSilenced()


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; an unreadable EXIF block is ignored.

    `ImageOps.exif_transpose` raises errors for a damaged block.
    """
    transpose = exif_transpose(image)
    return image if transpose is None else image.transpose(transpose)


def exif_transpose(image: Image.Image) -> Image.Transpose | None:
    """Return the transpose that `upright` applies; None if there is none."""
    return _TRANSPOSES.get(exif_orientation(image))


def exif_orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # the block is damaged, the pixels may be fine
        return 1
    return value if isinstance(value, int) else 1


def apply_orientation(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation to (H, W, C); values other than 2 to 8 change nothing."""
    if 5 <= orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    down = -1 if orientation in {3, 4, 7, 8} else 1
    across = -1 if orientation in {2, 3, 6, 7} else 1
    return np.ascontiguousarray(pixels[::down, ::across])


def has_16_bits(image: ImageFile.ImageFile) -> bool:
    """Return whether the file of an opened, not yet decoded image has 16 bits per channel."""
    if any(_SIXTEEN_BIT.search(str(tile.args)) for tile in image.tile):
        return True
    # For planar images Pillow's raw modes give the color only.
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(_PLANES) == 2 and 16 in tags.get(_BITS, ()))


def raw_mode(image: ImageFile.ImageFile) -> str:
    """Return Pillow's raw mode: the order of the channels and bytes in the file."""
    arguments = image.tile[0].args if image.tile else None
    if isinstance(arguments, tuple):
        arguments = arguments[0] if arguments else None
    return str(arguments or "")


def decode_as(path: Path, mode: str, stored: str) -> NDArray[np.uint8]:
    """Decode an image into `mode` from the raw mode `stored`, whatever Pillow would choose."""
    with Image.open(path, formats=IMAGE_FORMATS) as image:
        image._mode = mode
        image.tile = [
            tile._replace(args=(stored, *tile.args[1:]) if isinstance(tile.args, tuple) else stored)
            for tile in image.tile
        ]
        image.load()
        return np.asarray(upright(image))
