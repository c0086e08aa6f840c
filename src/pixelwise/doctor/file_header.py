"""What the first bytes and the header of a file show, to explain why it cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pixelwise.data.image_decoding import (
    IMAGE_FORMATS,
    exif_transpose,
    has_16_bits,
    warnings_silenced,
)
from pixelwise.file_io import check_regular

_SIGNATURES: tuple[tuple[bytes, int, str], ...] = (
    (b"\xff\xd8\xff", 0, "JPEG"),
    (b"\x89PNG\r\n\x1a\n", 0, "PNG"),
    (b"GIF8", 0, "GIF"),
    (b"BM", 0, "BMP"),
    (b"WEBP", 8, "WEBP"),
    (b"II*\0", 0, "TIFF"),
    (b"MM\0*", 0, "TIFF"),
    (b"ftypheic", 4, "HEIC"),
    (b"ftypmif1", 4, "HEIC"),
    (b"ftypavif", 4, "AVIF"),
    (b"\0\0\0\x0cjP  ", 0, "JPEG 2000"),
    (b"8BPS", 0, "PSD"),
    (b"%PDF", 0, "PDF"),
    (b"PK\x03\x04", 0, "ZIP"),
    (b"\x93NUMPY", 0, "NPY"),
    (b"<!doctype", 0, "HTML"),
    (b"<html", 0, "HTML"),
    (b"<svg", 0, "SVG"),
    (b"version https://git-lfs", 0, "Git LFS pointer"),
)


@dataclass(frozen=True)
class FileHeader:
    """The beginning of a file.

    Attributes:
        empty: Whether the file has no bytes.
        denied: Whether the user may not read it.
        content: The format that the first bytes show; None if it is unknown.
        mode: Pillow's mode, with ";16" for 16-bit color; None if Pillow cannot read the header.
        transpose: How the EXIF orientation changes the image; None if it does not.
    """

    empty: bool = False
    denied: bool = False
    content: str | None = None
    mode: str | None = None
    transpose: Image.Transpose | None = None


def read_header(path: Path) -> FileHeader:
    """Read the header of a file. Errors other than a denied permission are left to the reader."""
    try:
        check_regular(path)
        with path.open("rb") as stream:
            head = stream.read(64)
    except PermissionError:
        return FileHeader(denied=True)
    except OSError:
        return FileHeader()
    content = next((name for start, at, name in _SIGNATURES if _starts(head, start, at)), None)
    mode = transpose = None
    if content in IMAGE_FORMATS:
        try:
            with warnings_silenced, Image.open(path, formats=IMAGE_FORMATS) as image:
                mode = image.mode + (";16" if has_16_bits(image) else "")
                transpose = exif_transpose(image)
        except Exception:  # damaged bytes can raise anything in Pillow
            pass
    return FileHeader(not head, content=content, mode=mode, transpose=transpose)


def _starts(head: bytes, signature: bytes, offset: int) -> bool:
    text = head.lower() if signature.startswith(b"<") else head
    return text[offset : offset + len(signature)] == signature
