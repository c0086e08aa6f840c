"""Read LevelDB tables (leveldb's table_format.md, tensorflow/core/lib/io/table).

A table consists of blocks of sorted keys, each stored without the prefix that it shares with the
key before. The last 48 bytes point to a block that lists the other blocks. Blocks have masked
CRC-32C checksums, which are all verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pixelwise.errors import InputError
from pixelwise.weights.importers.crc32c import masked_crc32c

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes: two handles, zero padding and the magic number
TRAILER = 5  # bytes after a block: the type of compression and the CRC


def read_table(index: bytes, path: Path, *, remedy: str) -> dict[str, bytes]:
    """Read all entries of a table and verify the checksums of its blocks.

    Args:
        index: Contents of the file.
        path: The file, for error messages.
        remedy: What to do if it is not a table, for error messages.

    Returns:
        The values by key.

    Raises:
        InputError: If the table is cut off, damaged or compressed.
    """
    if not index:
        raise InputError(f"{path}: is empty (0 bytes): download it again")
    if len(index) < FOOTER or int.from_bytes(index[-8:], "little") != MAGIC:
        raise InputError(
            f"{path}: is not the index of a TensorFlow checkpoint, or is cut off (the magic "
            f"number is missing): {remedy}"
        )
    try:
        footer = index[-FOOTER:-8]
        offset, size, position = _handle(footer, 0)  # block of filters, empty in TensorFlow
        if list(_block(index, path, offset, size)):
            raise damaged_index(path)
        offset, size, position = _handle(footer, position)
        if any(footer[position:]):
            raise damaged_index(path)
        entries = {}
        for _, handle in _block(index, path, offset, size):
            offset, size, _ = _handle(handle, 0)
            for key, value in _block(index, path, offset, size):
                name = key.decode(errors="backslashreplace")  # keys of slices are not text
                if name in entries:
                    raise damaged_index(path)
                entries[name] = value
    except IndexError as error:
        raise damaged_index(path) from error
    return entries


def _block(index: bytes, path: Path, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of one block. Raises IndexError if they exceed it."""
    end = offset + size
    if end + TRAILER > len(index) - FOOTER:
        raise damaged_index(path)
    stored = int.from_bytes(index[end + 1 : end + TRAILER], "little")
    if masked_crc32c(index[offset : end + 1]) != stored:
        raise InputError(
            f"{path}: a block of the index does not match its checksum (CRC-32C), so the "
            "file is damaged: download it again"
        )
    if index[end]:
        raise InputError(
            f"{path}: the index is compressed (type {index[end]}), unlike TensorFlow's "
            "own: save the checkpoint with TensorFlow"
        )
    block = index[offset:end]
    restarts = int.from_bytes(block[-4:], "little")
    stop = len(block) - 4 * (restarts + 1)
    if len(block) < 4 or stop < 0:
        raise damaged_index(path)
    position, key = 0, b""
    while position < stop:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        if shared > len(key) or position + unshared + length > stop:
            raise damaged_index(path)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    """Read the offset and size of a block; the third value is the position after them."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return offset, size, position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a number with seven bits per byte, lowest first, and return the position after it.

    Raises IndexError beyond the end, and after ten bytes.
    """
    number = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise IndexError


def damaged_index(path: Path) -> InputError:
    """Return the error for an index that is malformed."""
    return InputError(f"{path}: the index is damaged: download it again")
