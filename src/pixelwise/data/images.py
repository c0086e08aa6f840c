"""The one module that decodes and encodes pictures.

Every failure of a file is one error type with the file's name and the remedy. Pillow does the
decoding, behind a list of formats, because OpenCV returns a half-grey picture for a truncated JPEG.
"""

from __future__ import annotations

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

from pixelwise.data.png import encode_palette, encode_rgb
from pixelwise.errors import InputError
from pixelwise.files import atomic

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
IMAGE_SUFFIXES = frozenset(FORMAT_OF_SUFFIX)
MASK_SUFFIXES = frozenset(s for s, name in FORMAT_OF_SUFFIX.items() if name in MASK_FORMATS)

MAX_PIXELS = 178_956_970
"""The size at which Pillow itself refuses a picture; held here too, for programs that lift it."""

_EIGHT_BIT = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK"})
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


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a photograph to RGB (H, W, 3), turned as its EXIF orientation says.

    Grey, palette and CMYK pictures become RGB; an alpha channel is left out. Raises InputError for
    a file that is missing, empty, truncated, of another format, deeper than 8 bits, animated or
    larger than MAX_PIXELS.
    """
    with _opened(path, IMAGE_FORMATS) as image:
        if image.mode not in _EIGHT_BIT and not image.mode.startswith("YCbCr"):
            raise InputError(
                f"{path}: has mode {image.mode}, not 8 bits a channel: save it as an 8-bit RGB PNG"
            )
        return np.asarray(upright(image).convert("RGB"))


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; as it is where EXIF cannot be read.

    `ImageOps.exif_transpose` raises what the bytes of a damaged EXIF block provoke.
    """
    turn = exif_turn(image)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # the block is damaged; the pixels need not be
        return 1
    return value if isinstance(value, int) else 1


def read_mask(path: Path) -> NDArray[Any]:
    """Decode a mask: (H, W) with the stored numbers (index or palette), or (H, W, 3) if it is RGB.

    A palette mask gives its indices, not its colours; a 1-bit mask gives 0 and 1. The numbers are
    uint8, or uint16 where a 16-bit grey mask holds one over 255. Raises InputError like
    `read_image`, and for JPEG, whose compression blurs the class values.
    """
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        raise InputError(
            f"{path}: a JPEG mask has blurred class values at every edge: export the masks as PNG"
        )
    with _opened(path, MASK_FORMATS, deep_grey=True) as image:
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
                raise InputError(
                    f"{path}: has transparent pixels, which class is not clear: save the mask "
                    "without an alpha channel"
                )
            return pixels[..., :3]
        raise InputError(
            f"{path}: has mode {image.mode}: masks are index, palette or RGB pictures: save it as "
            "an 8-bit PNG"
        )


def mask_palette(path: Path) -> NDArray[np.uint8] | None:
    """The colours (N, 3) of a palette mask, or None if the mask has no palette."""
    with _opened(path, MASK_FORMATS, deep_grey=True) as image:
        if image.mode != "P" or image.palette is None:
            return None
        return np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)


def turned_by_exif(path: Path) -> bool:
    """Whether an EXIF orientation swaps width and height of this picture."""
    with _opened(path, IMAGE_FORMATS, decode=False) as image:  # decoding a TIFF turns it already
        return _orientation(image) in {5, 6, 7, 8}


def has_16_bits(image: ImageFile.ImageFile) -> bool:
    """Whether an opened picture that is not decoded yet has 16 bits a channel in its file."""
    return any(_SIXTEEN_BIT.search(str(tile.args)) for tile in image.tile)


def exif_turn(image: Image.Image) -> Image.Transpose | None:
    """How `upright` turns this picture; None where it leaves it."""
    return _TURNS.get(_orientation(image))


@contextmanager
def _opened(
    path: Path, formats: tuple[str, ...], *, decode: bool = True, deep_grey: bool = False
) -> Iterator[Image.Image]:
    """Open and decode a picture; every way in which a file can be bad becomes one InputError.

    deep_grey: whether one channel of 16 bits is welcome.
    """
    too_large = f"{path}: is over the limit of {MAX_PIXELS} pixels: cut it into parts"
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a picture: give a file")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty (0 bytes): restore the file or remove it")
        with quiet, Image.open(path, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(too_large)
            # In an MPO, which is how some cameras write a JPEG, what follows are previews.
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                raise InputError(
                    f"{path}: holds several pictures (animation or pages): save the one you mean"
                )
            # Pillow has no mode for colour of 16 bits a channel: it would drop half of each.
            welcome = deep_grey and image.mode.startswith("I;16")
            if not welcome and has_16_bits(image):
                raise InputError(
                    f"{path}: has 16 bits a channel, 8 are read: save it as an 8-bit PNG"
                )
            if decode:
                image.load()
            yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        allowed = ", ".join(formats)
        raise InputError(
            f"{path}: is not a picture that can be read (allowed are {allowed}): convert it or "
            "remove it"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(too_large) from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: is not there: check the path") from error
    except Exception as error:  # Pillow's plugins raise whatever the file's bytes provoke
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Pillow's
            raise InputError(
                f"{path}: cannot be read ({error.strerror}): check the path and its permissions"
            ) from error
        raise InputError(
            f"{path}: is damaged or cut off ({error}): restore the file or remove it"
        ) from error


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


def write_mask(path: Path, mask: NDArray[np.uint8], *, palette: bytes) -> None:
    """Write a mask (H, W) as a palette PNG; `palette` is 768 bytes of RGB. Atomic."""
    with atomic(path) as side:
        side.write_bytes(encode_palette(mask, palette))


def write_image(path: Path, image: Image.Image | NDArray[np.uint8]) -> None:
    """Write RGB, (H, W, 3) or a PIL image, as PNG. Atomic."""
    with atomic(path) as side:
        side.write_bytes(encode_rgb(np.asarray(image)))


def list_images(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The pictures directly in `folder`, by name; hidden files are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )
