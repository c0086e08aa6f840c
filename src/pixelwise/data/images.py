"""The one module that decodes and encodes pictures.

Every failure of a file is one error type with the file's name and the remedy. Pillow does the
decoding, behind a list of formats, because OpenCV returns a half-grey picture for a truncated JPEG.
What Pillow cannot decode of TIFF is `tiff`'s, arrays are `arrays`'.
"""

from __future__ import annotations

import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pixelwise.data.arrays import ARRAY_SUFFIXES, as_mask, read_array
from pixelwise.data.pixels import RGB, PixelFormat, Pixels, RawImage
from pixelwise.data.tiff import read_tiff
from pixelwise.errors import InputError
from pixelwise.files import atomic, check_regular

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
PICTURE_SUFFIXES = frozenset(FORMAT_OF_SUFFIX)
IMAGE_SUFFIXES = PICTURE_SUFFIXES | ARRAY_SUFFIXES
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
_TURNED: dict[Image.Transpose, Callable[[NDArray[Any]], NDArray[Any]]] = {
    Image.Transpose.FLIP_LEFT_RIGHT: lambda a: a[:, ::-1],
    Image.Transpose.ROTATE_180: lambda a: a[::-1, ::-1],
    Image.Transpose.FLIP_TOP_BOTTOM: lambda a: a[::-1],
    Image.Transpose.TRANSPOSE: lambda a: a.swapaxes(0, 1),
    Image.Transpose.ROTATE_270: lambda a: np.rot90(a, -1),
    Image.Transpose.TRANSVERSE: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    Image.Transpose.ROTATE_90: lambda a: np.rot90(a),
}
_BITS, _SAMPLES, _PLANES, _SAMPLE_FORMAT = 258, 277, 284, 339  # tags of TIFF 6.0
_UNNAMED = {"RGBX": "RGBA", "LX": "LA"}
"""Raw modes of channels that are neither colour nor opacity, which Pillow drops: read as if."""


def read_image(path: Path, pixels: PixelFormat = RGB) -> Pixels:
    """Decode a picture to (H, W, C) in units of 0..255, turned as its EXIF orientation says.

    pixels: what is expected; by default 8 bits and RGB: grey, palette and CMYK pictures become RGB,
    an alpha channel is left out. Raises InputError as `read_raw`, and for a picture of another
    type or other channels.
    """
    return pixels.scale(pixels.select(read_raw(path), path))


def read_raw(path: Path) -> RawImage:
    """Decode a picture to the numbers that it holds, turned as its EXIF orientation says.

    Palette, CMYK and 1-bit pictures become RGB or grey of 8 bits. Arrays (.npy) are (H, W) or
    (H, W, C). Raises InputError for a file that is missing, empty, truncated, of another format,
    animated or larger than MAX_PIXELS, and for numbers that are not finite.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return RawImage(_finite(read_array(path), path))
    try:
        with _opened(path, IMAGE_FORMATS, decode=False, deep=True) as image:
            raw = _decoded(path, image)
    except _BeyondPillowError:
        raw = _read_tiff(path)
    return replace(raw, pixels=_finite(raw.pixels, path))


def _read_tiff(path: Path) -> RawImage:
    """What is beyond Pillow, its numbers of any type."""
    with _readable(path):
        stored, alpha, orientation = read_tiff(path, max_pixels=MAX_PIXELS)
    turn = _TURNS.get(orientation)
    turned = stored if turn is None else _TURNED[turn](stored)
    return RawImage(np.ascontiguousarray(turned), alpha, doubtful=alpha)


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
    """The numbers of an opened picture.

    Raises _BeyondPillowError where Pillow would change them.
    """
    mode, stored, tiff = image.mode, _stored(image), image.format == "TIFF"
    if tiff:
        tags = image.tag_v2  # type: ignore[attr-defined]
        samples, forms = tags.get(_SAMPLES, 1), tags.get(_SAMPLE_FORMAT, (1,))
        one = samples == 1 and (mode in {"I", "F"} or mode.startswith("I;16"))
        planes = tags.get(_PLANES, 1) == 2 and has_16_bits(image)
        if not one and (samples > 4 or planes or set(forms) != {1}):
            raise _BeyondPillowError
    if has_16_bits(image) and not mode.startswith("I;16"):
        return _sixteen_bits(path, image)
    if stored in _UNNAMED:
        wider = _UNNAMED[stored]
        return RawImage(_decoded_as(path, wider, wider))
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
    return RawImage(np.asarray(picture.convert("RGB")))


def _sixteen_bits(path: Path, image: ImageFile.ImageFile) -> RawImage:
    """A colour picture of 16 bits a channel, for which Pillow has no mode.

    Its raw modes keep one byte of each two, which one by the order that they are told: decoded in
    both orders all bytes are there. Of grey with opacity it knows one order only; there the four
    bytes of a pixel are read as four channels.
    """
    name, _, order = _stored(image).partition(";16")
    if name == "LA" and order == "B":
        four = _decoded_as(path, "RGBA", "RGBA").astype(np.uint16)
        return RawImage(four[..., 0::2] << 8 | four[..., 1::2], alpha=True)
    name = _UNNAMED.get(name, name)
    if name not in {"RGB", "RGBA"} or order not in {"L", "B", "N"}:
        raise _BeyondPillowError
    if order == "N":
        order = sys.byteorder[0].upper()
    other = "B" if order == "L" else "L"
    high, low = (_decoded_as(path, name, f"{name};16{o}").astype(np.uint16) for o in (order, other))
    tiff = image.format == "TIFF"
    alpha = image.mode == "RGBA"
    return RawImage(high << 8 | low, alpha=alpha, doubtful=alpha and tiff)


def _stored(image: ImageFile.ImageFile) -> str:
    """Pillow's raw mode: how the pixels lie in the file."""
    arguments = image.tile[0].args if image.tile else None
    if isinstance(arguments, tuple):
        arguments = arguments[0] if arguments else None
    return str(arguments or "")


def _decoded_as(path: Path, mode: str, stored: str) -> NDArray[np.uint8]:
    """The picture decoded into another mode, from another raw mode, than Pillow would choose."""
    with Image.open(path, formats=IMAGE_FORMATS) as image:
        image._mode = mode
        image.tile = [
            tile._replace(args=(stored, *tile.args[1:]) if isinstance(tile.args, tuple) else stored)
            for tile in image.tile
        ]
        image.load()
        return np.asarray(upright(image))


class _BeyondPillowError(Exception):
    """A TIFF that Pillow does not read, or not as it is."""


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
    uint8, or uint16 where a 16-bit grey mask holds one over 255. TIFF of other channels than grey
    and RGB has one a class (one-hot). Raises InputError like `read_image`, and for JPEG, whose
    compression blurs the class values.
    """
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        raise InputError(
            f"{path}: a JPEG mask has blurred class values at every edge: export the masks as PNG"
        )
    try:
        with _opened(path, MASK_FORMATS, decode=False) as image:
            if image.mode in {"L", "RGB"} and _stored(image).endswith("X"):  # a channel is dropped
                raise _BeyondPillowError
            image.load()
            return _mask_numbers(path, image)
    except _BeyondPillowError:
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
                raise _BeyondPillowError
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
    with suppress(_BeyondPillowError), _opened(path, MASK_FORMATS) as image:
        if image.mode == "P" and image.palette is not None:
            return np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    return None


def turned_by_exif(path: Path) -> bool:
    """Whether an EXIF orientation swaps width and height of this picture."""
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return False
    # Not decoded, for decoding turns a TIFF already.
    opened = _opened(path, IMAGE_FORMATS, decode=False, deep=True)
    with suppress(_BeyondPillowError), opened as image:
        return _orientation(image) in {5, 6, 7, 8}
    return False


def has_16_bits(image: ImageFile.ImageFile) -> bool:
    """Whether an opened picture that is not decoded yet has 16 bits a channel in its file."""
    if any(_SIXTEEN_BIT.search(str(tile.args)) for tile in image.tile):
        return True
    # Of planes Pillow's raw modes say the colour alone.
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(_PLANES) == 2 and 16 in tags.get(_BITS, ()))


def exif_turn(image: Image.Image) -> Image.Transpose | None:
    """How `upright` turns this picture; None where it leaves it."""
    return _TURNS.get(_orientation(image))


@contextmanager
def _opened(
    path: Path, formats: tuple[str, ...], *, decode: bool = True, deep: bool = False
) -> Iterator[ImageFile.ImageFile]:
    """Open and decode a picture; every way in which a file can be bad becomes one InputError.

    deep: whether more than 8 bits a channel are welcome; else those of one channel of 16 bits are.
    """
    with _readable(path, formats):
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a picture: give a file")
        check_regular(path)
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty (0 bytes): restore the file or remove it")
        with quiet, Image.open(path, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise too_large(path)
            # In an MPO, which is how some cameras write a JPEG, what follows are previews.
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                if deep and image.format == "TIFF":  # pages may be channels
                    raise _BeyondPillowError
                raise InputError(
                    f"{path}: holds several pictures (animation or pages): save the one you mean"
                )
            # Pillow has no mode for colour of 16 bits a channel: it would drop half of each.
            if not deep and not image.mode.startswith("I;16") and has_16_bits(image):
                raise InputError(
                    f"{path}: has 16 bits a channel, 8 are read: save it as an 8-bit PNG"
                )
            if decode:
                image.load()
            yield image


def too_large(path: Path) -> InputError:
    return InputError(f"{path}: is over the limit of {MAX_PIXELS} pixels: cut it into parts")


@contextmanager
def _readable(path: Path, formats: tuple[str, ...] = IMAGE_FORMATS) -> Iterator[None]:
    """Around what decodes `path`: whatever its bytes provoke becomes an InputError."""
    try:
        yield
    except (InputError, _BeyondPillowError):
        raise
    except UnidentifiedImageError as error:
        if _is_tiff(path):
            raise _BeyondPillowError from error
        allowed = ", ".join(formats)
        raise InputError(
            f"{path}: is not a picture that can be read (allowed are {allowed}): convert it or "
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


def write_mask(path: Path, mask: NDArray[np.uint8], *, palette: bytes) -> None:
    """Write a mask (H, W) as a palette PNG; `palette` is 768 bytes of RGB. Atomic."""
    image = Image.fromarray(mask)  # (H, W) uint8 is mode L; putpalette makes it P, pixels untouched
    image.putpalette(palette)
    with atomic(path) as side:
        image.save(side, format="PNG")


def write_image(path: Path, image: Image.Image | NDArray[np.uint8]) -> None:
    """Write RGB (H, W, 3) or a PIL image as PNG. Atomic."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    with atomic(path) as side:
        image.save(side, format="PNG")


def list_images(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The pictures directly in `folder`, by name; hidden files are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )
