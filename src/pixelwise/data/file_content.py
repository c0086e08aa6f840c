"""Recognize what a file contains from its first bytes, to explain why it is not a usable image."""

from __future__ import annotations

import re
from pathlib import Path

from pixelwise.errors import InputError

HEAD_BYTES = 512
LFS_POINTER = "Git LFS pointer"
_SIGNATURES: tuple[tuple[bytes, int, str], ...] = (
    (b"\xff\xd8\xff", 0, "JPEG"),
    (b"\x89PNG\r\n\x1a\n", 0, "PNG"),
    (b"GIF8", 0, "GIF"),
    (b"BM", 0, "BMP"),
    (b"WEBP", 8, "WEBP"),
    (b"II*\0", 0, "TIFF"),
    (b"MM\0*", 0, "TIFF"),
    (b"II+\0", 0, "TIFF"),
    (b"MM\0+", 0, "TIFF"),
    *((b"ftyp" + brand, 4, "AVIF") for brand in (b"avif", b"avis")),
    *((b"ftyp" + b, 4, "HEIF") for b in (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")),
    (b"\0\0\0\x0cjP  ", 0, "JPEG2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG2000"),
    *((b"P" + digit, 0, "PPM") for digit in (b"1", b"2", b"3", b"4", b"5", b"6")),
    (b"8BPS", 0, "PSD"),
    (b"%PDF", 0, "PDF"),
    (b"PK\x03\x04", 0, "ZIP"),
    (b"\x93NUMPY", 0, "NPY"),
    (b"<!doctype html", 0, "HTML"),
    (b"<html", 0, "HTML"),
    (b"<?xml", 0, "XML"),
    (b"<svg", 0, "SVG"),
    (b"version https://git-lfs", 0, LFS_POINTER),
    (b"/annex/objects/", 0, "git-annex pointer"),
)
NO_IMAGES = {
    LFS_POINTER: "run `git lfs pull` in its repository",
    "git-annex pointer": "run `git annex get` in its repository",
    "HTML": "download the file again, since a server sent a web page in its place",
    "XML": "download the file again, since a server sent a message in its place",
}
"""The remedy for contents that stand in the place of a missing file."""


def recognize(head: bytes) -> str | None:
    """Return the format that the first bytes of a file show; None if it is unknown."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, offset, name in _SIGNATURES:
        start = text if signature.startswith(b"<") else head
        if start[offset : offset + len(signature)] == signature:
            return name
    return None


def explain_non_image(head: bytes) -> str | None:
    """Return problem and remedy for a file that is no image at all; None if that is not known."""
    content = recognize(head)
    if content in NO_IMAGES:
        article = "an" if content in {"HTML", "XML"} else "a"
        noun = f"{content} document" if content in {"HTML", "XML"} else content
        return f"is {article} {noun} instead of an image: {NO_IMAGES[content]}"
    # Git writes a symbolic link as a text file where links are not available.
    if re.fullmatch(rb"[^\0\r\n]*/[^\0\r\n]*\.\w{2,5}", head.strip()) and len(head) < HEAD_BYTES:
        target = head.decode("utf-8", "replace").strip()
        return f"is a text file with the path {target}, a link without its file: put the file there"
    return None


def check_no_pointer(path: Path, text: str) -> None:
    """Raise InputError if the beginning of a text file shows that its content is elsewhere."""
    content = recognize(text[:HEAD_BYTES].encode())
    if content == LFS_POINTER:
        raise InputError(f"{path}: is a {content} instead of the file: {NO_IMAGES[content]}")


def missing_file(path: Path) -> InputError:
    """Return the error for a path without a file."""
    if path.is_symlink():
        return InputError(
            f"{path}: is a link to {path.readlink()}, which does not exist: fetch the data that it "
            "links to (for example `git annex get` or `dvc pull`), or remove the link"
        )
    return InputError(f"{path}: does not exist: check the path")


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file. Raises OSError if it cannot be read."""
    with path.open("rb") as stream:
        return stream.read(HEAD_BYTES)
