"""What the first bytes and the header of a file show, to explain why it cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pixelwise.data.file_content import read_head, recognize
from pixelwise.data.image_decoding import (
    IMAGE_FORMATS,
    exif_transpose,
    has_16_bits,
    warnings_silenced,
)
from pixelwise.errors import InputError
from pixelwise.file_io import check_regular
from pixelwise.storage.mirror import when_present


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

    @property
    def swaps_sides(self) -> bool:
        """Whether the EXIF orientation swaps width and height."""
        return self.transpose in {
            Image.Transpose.ROTATE_90,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.TRANSVERSE,
        }


def read_header(path: Path) -> FileHeader:
    """Read the header of a file. Errors other than a denied permission are left to the reader."""
    try:
        return _read_header(path)
    except InputError:  # the file is no longer in the object store
        return FileHeader()


@when_present
def _read_header(path: Path) -> FileHeader:
    try:
        check_regular(path)
        head = read_head(path)
    except PermissionError:
        return FileHeader(denied=True)
    except OSError:
        return FileHeader()
    content = recognize(head)
    mode = transpose = None
    if content in IMAGE_FORMATS:
        try:
            with warnings_silenced, Image.open(path, formats=(content,)) as image:
                mode = image.mode + (";16" if has_16_bits(image) else "")
                transpose = exif_transpose(image)
        except Exception:  # damaged bytes can raise anything in Pillow
            pass
    return FileHeader(not head, content=content, mode=mode, transpose=transpose)
