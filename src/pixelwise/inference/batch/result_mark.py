"""The mark in each result, by which prediction recognizes the files that it wrote.

A mark holds the SHA-256 of the rest of the file. A mask that was corrected by hand therefore counts
as somebody else's file, whatever the program that wrote it has kept of the original. In PNG files
the mark is a text chunk before the last chunk; in TIFF and MP4 files it is a box at the end, which
MP4 defines and TIFF ignores.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
TEXT = b"Software\0pixelwise predict; SHA-256 of the rest of the file: "
CHUNK_BYTES = 1 << 20


def mark_png(data: bytes) -> bytes:
    """Return a PNG file with a mark."""
    mark = _mark(hashlib.sha256(data).hexdigest(), is_png=True)
    return data[: -len(PNG_END)] + mark + PNG_END


def mark_file(path: Path) -> None:
    """Append a mark to a TIFF or MP4 file."""
    digest = _digest(path, path.stat().st_size)
    with path.open("ab") as stream:
        stream.write(_mark(digest, is_png=False))


def is_result(path: Path) -> bool:
    """Return whether prediction wrote a file and nobody has changed it since."""
    tail = PNG_END if path.suffix == ".png" else b""
    length = len(_mark("0" * 64, is_png=bool(tail)))
    try:
        end = path.stat().st_size - len(tail) - length
        if end < 0:
            return False
        with path.open("rb") as stream:
            stream.seek(end)
            mark = stream.read(length)
        return TEXT in mark and mark == _mark(_digest(path, end, tail), is_png=bool(tail))
    except OSError:
        return False


def is_cut_off(path: Path) -> bool:
    """Return whether a result is not a complete PNG file, as after a power failure."""
    return path.suffix == ".png" and path.is_file() and not path.read_bytes().endswith(PNG_END)


def _mark(digest: str, *, is_png: bool) -> bytes:
    text = TEXT + digest.encode()
    if is_png:
        chunk = b"tEXt" + text
        return struct.pack(">I", len(text)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return struct.pack(">I", 8 + len(text)) + b"free" + text


def _digest(path: Path, size: int, tail: bytes = b"") -> str:
    """Return the SHA-256 of the first `size` bytes of a file, followed by `tail`."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while size and (data := stream.read(min(size, CHUNK_BYTES))):
            digest.update(data)
            size -= len(data)
    digest.update(tail)
    return digest.hexdigest()
