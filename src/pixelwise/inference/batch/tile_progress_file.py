"""How far a pass over one image has come, in a file: after a kill the next one goes on there.

A line that says of what, then records: the sums of an image pooling so far, or a strip of the mask,
compressed. Each is flushed to disk, with a sum over its bytes; one that a kill has torn ends the
file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.file_io import append_whole
from pixelwise.inference.tiling.tile_progress import Sums

HEAD = struct.Struct("<BIIQ")  # kind, pooling, rows, bytes that follow
CHECK = struct.Struct("<I")  # CRC of the head and of what follows
SUMS, STRIP = 1, 2
POSITIONS = struct.Struct("<q")


class TileProgressFile:
    """A `Trail` in the file at `path`, and the strips of the mask that are finished.

    about: all that decides the result, a line; what was left of something else is of no use and
    overwritten. Use it in `with`. Raises OSError where the file cannot be written; what was kept
    before is kept then.
    """

    def __init__(self, path: Path, about: str) -> None:
        self.path = path
        self._about = about.encode() + b"\n"
        self._sums: dict[int, Sums] = {}
        self._strips: list[tuple[int, int, int]] = []  # rows, where, and how many bytes

    def __enter__(self) -> TileProgressFile:
        # Not buffered: nothing is to come after a write that failed.
        self._file = self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)
        if self._file.read(len(self._about)) == self._about:
            self._read()
        else:
            self._file.seek(0)
            self._file.truncate()  # first: what is there is not to follow another line
            append_whole(self._file, self._about)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def rows(self) -> int:
        """Of tiles; each has given a strip of the mask."""
        return len(self._strips)

    def sums(self, pooling: int) -> Sums:
        return self._sums.get(pooling, Sums())

    def keep_sums(self, pooling: int, sums: Sums) -> None:
        self._append(
            SUMS, pooling, sums.rows, POSITIONS.pack(sums.positions) + sums.total.tobytes()
        )

    def through(self, strips: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """The strips (rows, width) that are kept, and `strips`, which go on from there and are kept
        one by one."""
        for rows, start, size in self._strips:
            self._file.seek(start)
            data = zlib.decompress(self._file.read(size))
            yield np.frombuffer(data, np.uint8).reshape(rows, -1)
        for strip in strips:
            self._append(STRIP, 0, len(strip), zlib.compress(strip.tobytes(), 1))
            yield strip

    def _read(self) -> None:
        """What is whole; the file then stands behind it."""
        end, length = self._file.tell(), self.path.stat().st_size
        while (start := end + HEAD.size + CHECK.size) <= length:
            head, check = self._file.read(HEAD.size), self._file.read(CHECK.size)
            kind, pooling, rows, size = HEAD.unpack(head)
            if kind not in {SUMS, STRIP} or start + size > length:
                break
            data = self._file.read(size)
            if CHECK.pack(zlib.crc32(head + data)) != check:
                break
            if kind == STRIP:
                self._strips.append((rows, start, size))
            else:
                (positions,) = POSITIONS.unpack_from(data)
                total = np.frombuffer(data, np.float64, offset=POSITIONS.size)
                self._sums[pooling] = Sums(rows, total, positions)
            end = start + size
        self._file.truncate(end)

    def _append(self, kind: int, pooling: int, rows: int, data: bytes) -> None:
        head = HEAD.pack(kind, pooling, rows, len(data))
        append_whole(self._file, head + CHECK.pack(zlib.crc32(head + data)) + data)
