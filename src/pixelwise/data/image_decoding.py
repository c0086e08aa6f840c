"""Open images with Pillow; everything that can be wrong with a file becomes an InputError."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

from pixelwise.data.file_content import explain_non_image, missing_file, read_head, recognize
from pixelwise.errors import InputError, needs_package
from pixelwise.file_io import check_regular

IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
MASK_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".jp2": "JPEG2000",
    ".j2k": "JPEG2000",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
}

MAX_PIXELS = 178_956_970
"""Pillow's own limit, enforced here too for programs that raise it."""
COSTLY_FORMATS = {"GIF": 4, "AVIF": 4, "HEIF": 3, "JPEG2000": 3}
"""Formats whose decoders hold several copies of an image, and a divisor of MAX_PIXELS for each."""

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
with suppress(OSError, AttributeError):  # libtiff prints errors that Pillow also raises
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

# Tags of TIFF 6.0.
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES = 258, 259, 262, 277, 284
_PREDICTOR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 317, 338, 339
_SEGMENTS = (273, 279), (324, 325)  # offsets and byte counts of strips, and of tiles
_COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}
"""Channels of each photometric interpretation that Pillow reads as it is meant."""
_WITH_PREDICTOR = frozenset({5, 8, 32946, 34925, 50000})
"""Compressions for which libtiff applies the predictor: LZW, Deflate, LZMA, Zstandard."""
JPEGS = frozenset({6, 7, 33007, 34892})
"""The values of Compression that are JPEG."""
_WEBP = 50001  # Pillow's libtiff cannot decode it


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
        with warnings_silenced, Image.open(path, formats=_plugins(path, formats)) as image:
            limit = MAX_PIXELS // COSTLY_FORMATS.get(str(image.format), 1)
            if image.width * image.height > limit:
                raise too_large(path, limit)
            _check_frames(path, image)
            _check_jpeg2000(path, image)
            if image.mode == "RGB" and (pnm_maxval(image) or 0) > 255:
                raise InputError(
                    f"{path}: is a PPM of 16 bits, which is not supported: save it as TIFF or PNG"
                )
            # Pillow has no mode for 16-bit color: it would drop one byte of each value.
            if not deep and not image.mode.startswith("I") and has_16_bits(image):
                raise InputError(
                    f"{path}: 16 bits per channel are not supported here: save it as an 8-bit PNG"
                )
            if decode:
                image.load()
            yield image


def _plugins(path: Path, formats: tuple[str, ...]) -> list[str]:
    """Return the formats that Pillow knows, and HEIF if the file has this format.

    Raises:
        InputError: If the plugin for HEIF is needed but not installed.
    """
    is_heif = "HEIF" in formats and recognize(read_head(path)) == "HEIF"
    if is_heif:
        with needs_package(
            f"{path}: reading HEIC and HEIF images needs pillow-heif: "
            "pip install 'pixelwise[heif]', or convert the image to JPEG"
        ):
            import pillow_heif
        pillow_heif.register_heif_opener()
    return [name for name in formats if name != "HEIF" or is_heif]


def _check_frames(path: Path, image: ImageFile.ImageFile) -> None:
    """Raise InputError for several images in a file, BeyondPillowError for several TIFF pages."""
    if image.format == "TIFF":
        if image.tag_v2.next:  # type: ignore[attr-defined]  # overviews, channels, images
            raise BeyondPillowError
    # The further images of an MPO, which some cameras write as JPEG, are previews.
    elif image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise InputError(
            f"{path}: the file has several images ({frames} frames or pages): save a single one"
        )


def _check_jpeg2000(path: Path, image: ImageFile.ImageFile) -> None:
    """Raise InputError for a JPEG 2000 that is cut off, or whose values Pillow would change.

    OpenJPEG decodes the part of a codestream that is there, and Pillow drops bits of color images.
    """
    if image.format != "JPEG2000":
        return
    data = path.read_bytes()
    start = data.find(b"\xff\x4f\xff\x51")
    ended = start >= 0 and data.rstrip(b"\0").endswith(b"\xff\xd9")
    if not ended or _count_tiles(data, start) != _expected_tiles(data, start):
        raise InputError(f"{path}: is damaged or cut off: restore the file or remove it")
    components = int.from_bytes(data[start + 40 : start + 42])
    depths = data[start + 42 : start + 42 + 3 * components : 3]
    is_deep = image.mode.startswith("I;16")
    if any(depth != 15 if is_deep else depth > 7 for depth in depths):  # signed is 128 and more
        raise InputError(
            f"{path}: is a JPEG 2000 of {(max(depths) & 127) + 1} bits per channel; supported are "
            "unsigned values of 8 bits, and of 16 bits in gray: save it as TIFF or PNG"
        )


def _expected_tiles(data: bytes, start: int) -> int:
    """Return the number of tiles by the SIZ marker of a codestream that begins at `start`."""
    right, bottom, _, _, width, height, x, y = struct.unpack_from(">8I", data, start + 8)
    across, down = math.ceil((right - x) / max(1, width)), math.ceil((bottom - y) / max(1, height))
    return int(across * down)


def _count_tiles(data: bytes, start: int) -> int:
    """Return the number of tiles that a codestream contains; packets never look like a marker."""
    return len({match[1] for match in re.finditer(rb"\xff\x90\0\x0a(..)", data[start:], re.DOTALL)})


def jpeg_mask(path: Path) -> InputError:
    return InputError(
        f"{path}: JPEG compression blurs the class values at edges: export the masks as PNG"
    )


def too_large(path: Path, limit: int | None = None) -> InputError:
    return InputError(
        f"{path}: the image exceeds the limit of {limit or MAX_PIXELS} pixels: split it into "
        "smaller images; `predict --large` takes TIFF files of any size"
    )


@contextmanager
def decoding_errors(path: Path, formats: tuple[str, ...] = IMAGE_FORMATS) -> Iterator[None]:
    """Turn whatever decoding `path` raises into an InputError."""
    try:
        yield
    except (InputError, BeyondPillowError):
        raise
    except UnidentifiedImageError as error:
        head = read_head(path)
        if recognize(head) == "TIFF":
            raise BeyondPillowError from error
        if recognize(head) == "JPEG" and "JPEG" not in formats:
            raise jpeg_mask(path) from error
        reason = explain_non_image(head)
        if reason is not None:
            raise InputError(f"{path}: {reason}") from error
        allowed = ", ".join(formats)
        raise InputError(
            f"{path}: is not an image that can be read (supported formats are {allowed}): convert "
            "it or remove it"
        ) from error
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    except FileNotFoundError as error:
        raise missing_file(path) from error
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


class _WarningsSilenced:
    """Silence harmless warnings of Pillow and rasterio, in any number of threads.

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
_replacing = threading.Lock()


@contextmanager
def warnings_hidden() -> Iterator[None]:
    """Call what hides warnings itself, as some functions of rasterio and shapely do.

    They use `warnings.catch_warnings`, which works for one thread at a time.
    """
    with _replacing, warnings_silenced:
        yield


def _forget_threads() -> None:
    global _replacing
    _replacing, warnings_silenced.lock = threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):  # a thread that held a lock is not in the forked process
    os.register_at_fork(after_in_child=_forget_threads)


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


def check_tiff_tags(image: ImageFile.ImageFile) -> None:
    """Raise BeyondPillowError for a TIFF that Pillow cannot read, or of which it drops channels."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    samples, extra = tags.get(_SAMPLES, 1), tuple(tags.get(_EXTRA_SAMPLES, ()))
    photometric, compression = tags.get(_PHOTOMETRIC, 0), tags.get(_COMPRESSION, 1)
    planar = tags.get(_PLANES, 1) == 2
    gray = samples == 1 and (image.mode in {"I", "F"} or image.mode.startswith("I;16"))
    if (
        samples != _COLORS.get(photometric, 0) + len(extra)
        or len(extra) > 1
        or (planar and (extra or has_16_bits(image) or photometric not in {1, 2}))
        or (not gray and set(sample_formats(image)) != {1})
        or (tags.get(_PREDICTOR, 1) != 1 and compression not in _WITH_PREDICTOR)
        or (photometric == 0 and image.mode not in {"1", "L"})  # Pillow does not invert these
        or compression == _WEBP
        or omits_segments(image)
    ):
        raise BeyondPillowError


def omits_segments(image: ImageFile.ImageFile) -> bool:
    """Return whether an opened file is a TIFF without its empty strips or tiles, as GDAL writes.

    Pillow would read the beginning of the file in their place.
    """
    tags = getattr(image, "tag_v2", {})
    return any((0, 0) in zip(tags.get(o, ()), tags.get(c, ()), strict=False) for o, c in _SEGMENTS)


def sample_formats(image: ImageFile.ImageFile) -> tuple[int, ...]:
    """Return the type of each channel of an opened TIFF: 1 unsigned, 2 signed, 3 float."""
    return tuple(image.tag_v2.get(_SAMPLE_FORMAT, (1,)))  # type: ignore[attr-defined]


def pnm_maxval(image: ImageFile.ImageFile) -> int | None:
    """Return the largest value that an opened PGM or PPM declares, if Pillow scales to it."""
    tile = image.tile[0] if image.format == "PPM" and image.tile else None
    if tile is None or tile.codec_name not in {"ppm", "ppm_plain"}:
        return None
    return tile.args[-1] if isinstance(tile.args, tuple) else None


def unscale(pixels: NDArray[Any], maxval: int, scaled_to: int) -> NDArray[Any]:
    """Return the stored values of a PGM, which Pillow scales from `maxval` to `scaled_to`."""
    values = np.rint(pixels.astype(np.float64) * (maxval / scaled_to))
    return values.astype(np.uint8 if maxval <= 255 else np.uint16)


def is_jpeg_tiff(image: ImageFile.ImageFile) -> bool:
    """Return whether an opened TIFF is compressed with JPEG."""
    return image.tag_v2.get(_COMPRESSION, 1) in JPEGS  # type: ignore[attr-defined]


def is_white_zero(image: ImageFile.ImageFile) -> bool:
    """Return whether an opened gray file stores white as 0, which Pillow inverts."""
    if image.format == "TIFF" and image.mode in {"1", "L"}:
        return bool(image.tag_v2.get(_PHOTOMETRIC, 0) == 0)  # type: ignore[attr-defined]
    return image.format == "PPM" and image.mode == "1"


def has_extra_samples(image: ImageFile.ImageFile) -> bool:
    """Return whether an opened TIFF has channels beside its colors."""
    return bool(image.tag_v2.get(_EXTRA_SAMPLES, ()))  # type: ignore[attr-defined]


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
    with Image.open(path, formats=_plugins(path, IMAGE_FORMATS)) as image:
        image._mode = mode
        image.tile = [
            tile._replace(args=(stored, *tile.args[1:]) if isinstance(tile.args, tuple) else stored)
            for tile in image.tile
        ]
        image.load()
        return np.asarray(upright(image))
