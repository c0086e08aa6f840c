"""The mark in each result, by which prediction recognizes the files that it wrote.

A mark holds the SHA-256 of the rest of the file. A mask that was corrected by hand therefore counts
as somebody else's file, whatever the program that wrote it has kept of the original. In PNG files
the mark is a text chunk before the last chunk, and in GeoJSON the last member. In TIFF, MP4 and
GeoPackage files it is a box at the end, which MP4 defines and the others ignore.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

from pixelwise.overwriting import RESULT_NOTE

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
GEOJSON_END = b"\n}\n"
TAILS = {".png": PNG_END, ".geojson": GEOJSON_END}
"""What follows the mark."""
TEXT = b"Software\0" + RESULT_NOTE
CHUNK_BYTES = 1 << 20


def mark_png(data: bytes) -> bytes:
    """Return a PNG file with a mark."""
    mark = _mark(hashlib.sha256(data).hexdigest(), ".png")
    return data[: -len(PNG_END)] + mark + PNG_END


def mark_file(path: Path) -> None:
    """Append a mark to a TIFF, MP4 or GeoPackage file, or insert one into a GeoJSON file."""
    if path.suffix == ".geojson":
        content = path.read_bytes().rstrip().removesuffix(b"}").rstrip()
        digest = hashlib.sha256(content + GEOJSON_END).hexdigest()
        path.write_bytes(content + _mark(digest, path.suffix) + GEOJSON_END)
        return
    digest = _digest(path, path.stat().st_size)
    with path.open("ab") as stream:
        stream.write(_mark(digest, path.suffix))


def is_result(path: Path) -> bool:
    """Return whether prediction wrote a file and nobody has changed it since."""
    tail = TAILS.get(path.suffix, b"")
    length = len(_mark("0" * 64, path.suffix))
    try:
        end = path.stat().st_size - len(tail) - length
        if end < 0:
            return False
        with path.open("rb") as stream:
            stream.seek(end)
            mark = stream.read(length)
        return RESULT_NOTE in mark and mark == _mark(_digest(path, end, tail), path.suffix)
    except OSError:
        return False


def is_cut_off(path: Path) -> bool:
    """Return whether a result is not a complete PNG file, as after a power failure."""
    return path.suffix == ".png" and path.is_file() and not path.read_bytes().endswith(PNG_END)


def _mark(digest: str, suffix: str) -> bytes:
    text = TEXT + digest.encode()
    if suffix == ".geojson":
        return b',\n"written_by": "' + RESULT_NOTE + digest.encode() + b'"'
    if suffix == ".png":
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
