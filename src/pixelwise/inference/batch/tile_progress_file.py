"""The progress of a tiled pass over one image in a file, from which the next pass is resumed.

The file has one line that identifies the pass, followed by records: the sums of an image
pooling so far, or a compressed strip of the mask. Each record is flushed to disk with a checksum;
the file ends before a record that a kill has torn.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.file_io import append_whole
from pixelwise.inference.tiling.tile_progress import PoolingSums, TileProgress

HEAD = struct.Struct("<BIIQ")  # kind, pooling, rows, number of bytes that follow
CHECK = struct.Struct("<I")  # CRC-32 of the head and of the bytes that follow
SUMS, STRIP = 1, 2
POSITIONS = struct.Struct("<q")


class TileProgressFile(TileProgress):
    """A `TileProgress` in a file, with the finished strips of the mask. Use it in `with`.

    Its methods raise OSError if the file cannot be written; what was saved before stays.

    Args:
        path: The file.
        key: One line with everything that decides the result. A file with another line is
            overwritten.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self._key = key.encode() + b"\n"
        self._sums: dict[int, PoolingSums] = {}
        self._strips: list[tuple[int, int, int]] = []  # rows, offset and length in bytes

    def __enter__(self) -> TileProgressFile:
        # Unbuffered: nothing may follow a write that failed.
        self._file = self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)
        if self._file.read(len(self._key)) == self._key:
            self._read()
        else:
            self._file.seek(0)
            self._file.truncate()  # before the new line: old records must not follow it
            append_whole(self._file, self._key)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def rows(self) -> int:
        """The number of finished rows of tiles, each with one strip of the mask."""
        return len(self._strips)

    def sums(self, pooling: int) -> PoolingSums:
        return self._sums.get(pooling, PoolingSums())

    def save_sums(self, pooling: int, sums: PoolingSums) -> None:
        self._append(
            SUMS, pooling, sums.rows, POSITIONS.pack(sums.positions) + sums.total.tobytes()
        )

    def record(self, strips: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Yield the saved strips (rows, width), then save and yield the strips that follow them."""
        for rows, start, size in self._strips:
            self._file.seek(start)
            data = zlib.decompress(self._file.read(size))
            yield np.frombuffer(data, np.uint8).reshape(rows, -1)
        for strip in strips:
            self._append(STRIP, 0, len(strip), zlib.compress(strip.tobytes(), 1))
            yield strip

    def _read(self) -> None:
        """Read all complete records, and cut the file off after them."""
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
                self._sums[pooling] = PoolingSums(rows, total, positions)
            end = start + size
        self._file.truncate(end)

    def _append(self, kind: int, pooling: int, rows: int, data: bytes) -> None:
        head = HEAD.pack(kind, pooling, rows, len(data))
        append_whole(self._file, head + CHECK.pack(zlib.crc32(head + data)) + data)
