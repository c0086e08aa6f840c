"""The one module that decodes and encodes pictures.

Every failure of a file is one error type with the file's name and the remedy. Pillow does the
decoding, behind a list of formats, because OpenCV returns a half-grey picture for a truncated JPEG.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pixelwise.errors import InputError
from pixelwise.files import atomic

IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
MASK_FORMATS = ("PNG", "BMP", "TIFF")
MASK_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff"})

MAX_PIXELS = 178_956_970
"""Pillow's own limit for one picture. Pillow only warns at it; here it is an error."""

_EIGHT_BIT = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK"})
_ORIENTATION = 0x0112


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a photograph to RGB (H, W, 3), turned as its EXIF orientation says.

    Grey, palette and CMYK pictures become RGB; an alpha channel is left out. Raises InputError for
    a file that is missing, empty, truncated, of another format, deeper than 8 bits, animated or
    larger than MAX_PIXELS.
    """
    with _Opened(path, IMAGE_FORMATS) as image:
        if image.mode not in _EIGHT_BIT and not image.mode.startswith("YCbCr"):
            raise InputError(
                f"{path}: has mode {image.mode}, not 8 bits a channel: save it as an 8-bit RGB PNG"
            )
        upright = ImageOps.exif_transpose(image)
        return np.asarray(upright.convert("RGB"))


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Decode a mask: (H, W) with the stored numbers (index or palette), or (H, W, 3) if it is RGB.

    A palette mask gives its indices, not its colours; a 1-bit mask gives 0 and 1. Raises InputError
    like `read_image`, and for JPEG, whose compression blurs the class values.
    """
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        raise InputError(
            f"{path}: a JPEG mask has blurred class values at every edge: export the masks as PNG"
        )
    with _Opened(path, MASK_FORMATS) as image:
        if image.mode in {"P", "L"}:
            return np.asarray(image)
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
            f"{path}: has mode {image.mode}: masks are 8-bit index, palette or RGB pictures: save "
            "it as an 8-bit PNG"
        )


def mask_palette(path: Path) -> NDArray[np.uint8] | None:
    """The colours (N, 3) of a palette mask, or None if the mask has no palette."""
    with _Opened(path, MASK_FORMATS) as image:
        if image.mode != "P" or image.palette is None:
            return None
        return np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)


def turned_by_exif(path: Path) -> bool:
    """Whether an EXIF orientation swaps width and height of this picture."""
    with _Opened(path, IMAGE_FORMATS) as image:
        return image.getexif().get(_ORIENTATION) in {5, 6, 7, 8}


class _Opened:
    """Open a picture; turn every way in which a file can be bad into one InputError."""

    def __init__(self, path: Path, formats: tuple[str, ...]) -> None:
        self.path = path
        self.formats = formats
        self.image: Image.Image | None = None

    def __enter__(self) -> Image.Image:
        path = self.path
        try:
            if path.stat().st_size == 0:
                raise InputError(f"{path}: is empty (0 bytes): restore the file or remove it")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of odd EXIF and metadata: harmless
                self.image = Image.open(path, formats=self.formats)
                width, height = self.image.size
                if width * height > MAX_PIXELS:
                    raise InputError(
                        f"{path}: has {width}x{height} pixels, over the limit of {MAX_PIXELS}: "
                        "cut it into parts"
                    )
                if getattr(self.image, "n_frames", 1) > 1:
                    raise InputError(
                        f"{path}: holds {self.image.n_frames} frames: save the one you mean"  # type: ignore[attr-defined]
                    )
                self.image.load()
        except InputError:
            self._close()
            raise
        except UnidentifiedImageError as error:
            self._close()
            allowed = ", ".join(self.formats)
            raise InputError(
                f"{path}: is not a picture that can be read (allowed are {allowed}): convert it or "
                "remove it"
            ) from error
        except FileNotFoundError as error:
            raise InputError(f"{path}: is not there: check the path") from error
        except Exception as error:  # Pillow's plugins raise whatever the file's bytes provoke
            self._close()
            raise InputError(
                f"{path}: is damaged or cut off ({error}): restore the file or remove it"
            ) from error
        return self.image

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self.image is not None:
            self.image.close()


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
