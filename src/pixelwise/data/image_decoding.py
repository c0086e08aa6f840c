"""Opening images with Pillow: every way in which a file can be bad becomes one kind of error."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
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
"""The size at which Pillow itself refuses an image; held here too, for programs that lift it."""

_SIXTEEN_BIT = re.compile(r"(?<!BGR);16")  # Pillow's raw modes; BGR;16 is 5, 6 and 5 bits
_ORIENTATION = 0x0112  # the tag of EXIF 2.3, and what each of its values asks for
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED: dict[Image.Transpose, Callable[[NDArray[Any]], NDArray[Any]]] = {
    Image.Transpose.FLIP_LEFT_RIGHT: lambda a: a[:, ::-1],
    Image.Transpose.ROTATE_180: lambda a: a[::-1, ::-1],
    Image.Transpose.FLIP_TOP_BOTTOM: lambda a: a[::-1],
    Image.Transpose.TRANSPOSE: lambda a: a.swapaxes(0, 1),
    Image.Transpose.ROTATE_270: lambda a: np.rot90(a, -1),
    Image.Transpose.TRANSVERSE: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    Image.Transpose.ROTATE_90: lambda a: np.rot90(a),
}
logging.getLogger("PIL").addHandler(logging.NullHandler())  # it logs what it then raises

_BITS, _PLANES = 258, 284  # tags of TIFF 6.0


class BeyondPillowError(Exception):
    """A TIFF that Pillow does not read, or not as it is."""


@contextmanager
def opened(
    path: Path, formats: tuple[str, ...], *, decode: bool = True, deep: bool = False
) -> Iterator[ImageFile.ImageFile]:
    """Open and decode an image; every way in which a file can be bad becomes one InputError.

    deep: whether more than 8 bits a channel are welcome; else those of one channel of 16 bits are.
    """
    with readable(path, formats):
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not an image: give a file")
        check_regular(path)
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty (0 bytes): restore the file or remove it")
        with quiet, Image.open(path, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise too_large(path)
            # In an MPO, which is how some cameras write a JPEG, what follows are previews.
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                if deep and image.format == "TIFF":  # pages may be channels
                    raise BeyondPillowError
                raise InputError(
                    f"{path}: holds several images (animation or pages): save the one you mean"
                )
            # Pillow has no mode for color of 16 bits a channel: it would drop half of each.
            if not deep and not image.mode.startswith("I;16") and has_16_bits(image):
                raise InputError(
                    f"{path}: has 16 bits a channel, 8 are read: save it as an 8-bit PNG"
                )
            if decode:
                image.load()
            yield image


def too_large(path: Path) -> InputError:
    return InputError(
        f"{path}: is over the limit of {MAX_PIXELS} pixels: cut it into parts; for predict, "
        "--large takes TIFF files of any size"
    )


@contextmanager
def readable(path: Path, formats: tuple[str, ...] = IMAGE_FORMATS) -> Iterator[None]:
    """Around what decodes `path`: whatever its bytes provoke becomes an InputError."""
    try:
        yield
    except (InputError, BeyondPillowError):
        raise
    except UnidentifiedImageError as error:
        if _is_tiff(path):
            raise BeyondPillowError from error
        allowed = ", ".join(formats)
        raise InputError(
            f"{path}: is not an image that can be read (allowed are {allowed}): convert it or "
            "remove it"
        ) from error
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: is not there: check the path") from error
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory: cut it into parts") from error
    except Exception as error:  # decoders raise whatever the file's bytes provoke
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Pillow's
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


class _Quiet:
    """Silences Pillow's warnings of odd metadata, which are harmless, in any number of threads.

    `warnings.catch_warnings` swaps the filters of the whole process: two threads that leave it in
    another order than they came would leave every later warning of the program silent.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.caught = warnings.catch_warnings()
                self.caught.__enter__()
                warnings.simplefilter("ignore")
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.caught.__exit__(None, None, None)


quiet = _Quiet()


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; as it is where EXIF cannot be read.

    `ImageOps.exif_transpose` raises what the bytes of a damaged EXIF block provoke.
    """
    turn = exif_turn(image)
    return image if turn is None else image.transpose(turn)


def orientation_of(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # the block is damaged; the pixels need not be
        return 1
    return value if isinstance(value, int) else 1


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, C) as an EXIF orientation asks for."""
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(_TURNED[turn](pixels))


def has_16_bits(image: ImageFile.ImageFile) -> bool:
    """Whether an opened image that is not decoded yet has 16 bits a channel in its file."""
    if any(_SIXTEEN_BIT.search(str(tile.args)) for tile in image.tile):
        return True
    # Of planes Pillow's raw modes say the color alone.
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(_PLANES) == 2 and 16 in tags.get(_BITS, ()))


def exif_turn(image: Image.Image) -> Image.Transpose | None:
    """How `upright` turns this image; None where it leaves it."""
    return _TURNS.get(orientation_of(image))


def raw_mode(image: ImageFile.ImageFile) -> str:
    """Pillow's raw mode: how the pixels lie in the file."""
    arguments = image.tile[0].args if image.tile else None
    if isinstance(arguments, tuple):
        arguments = arguments[0] if arguments else None
    return str(arguments or "")


def decoded_as(path: Path, mode: str, stored: str) -> NDArray[np.uint8]:
    """The image decoded into another mode, from another raw mode, than Pillow would choose."""
    with Image.open(path, formats=IMAGE_FORMATS) as image:
        image._mode = mode
        image.tile = [
            tile._replace(args=(stored, *tile.args[1:]) if isinstance(tile.args, tuple) else stored)
            for tile in image.tile
        ]
        image.load()
        return np.asarray(upright(image))
