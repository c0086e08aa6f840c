"""CRC-32C (Castagnoli, RFC 3720), with NumPy: the checksum of TensorFlow's checkpoints.

Byte by byte Python takes a minute for a hundred megabytes, and a package for it would be one more
requirement for one number. A CRC without its two inversions is linear over bits, so the data are
cut into lanes that are worked through side by side, and their sums are joined pair by pair: the
left one is shifted past the right one's bytes. Zeros in front change nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
Bytes = bytes | npt.NDArray[np.uint8]

POLYNOMIAL = 0x82F63B78  # with the lowest power in the highest bit
INVERTED = 0xFFFFFFFF
MASK_DELTA = 0xA282EAD8  # of LevelDB and TensorFlow


def crc32c(data: Bytes) -> int:
    """The CRC-32C of bytes, or of an array of them."""
    bytes_ = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    if len(bytes_) < 4:
        return _short(bytes_.tobytes())
    words = -(-len(bytes_) // 4)
    steps = 2 ** max(0, words.bit_length() // 2 - 2)
    lanes = -(-words // steps)
    padded = np.zeros(lanes * steps * 4, np.uint8)
    start = len(padded) - len(bytes_)
    padded[start:] = bytes_
    padded[start : start + 4] ^= 0xFF  # what starting from all ones comes to
    columns = np.ascontiguousarray(padded.view("<u4").reshape(lanes, steps).T)
    low, high = _word_tables()
    sums = np.zeros(lanes, np.uint32)
    for column in columns:
        sums = sums ^ column
        sums = low[sums & 0xFFFF] ^ high[sums >> 16]
    length = steps.bit_length() + 1  # a lane's bytes, as a power of two
    while len(sums) > 1:
        if len(sums) % 2:
            sums = np.concatenate([np.zeros(1, np.uint32), sums])
        sums = _shifted(sums[0::2], length) ^ sums[1::2]
        length += 1
    return int(sums[0]) ^ INVERTED


def masked_crc32c(data: Bytes) -> int:
    """The CRC-32C as LevelDB and TensorFlow store it, so that a CRC of data that hold a CRC is
    none of the usual numbers."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & INVERTED


def _short(data: bytes) -> int:
    crc = INVERTED
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc ^ INVERTED


@cache
def _columns(power: int) -> tuple[int, ...]:
    """What becomes of each of the 32 bits of a sum when 2**power zero bytes follow."""
    if power:
        half = _columns(power - 1)
        return tuple(_apply(half, column) for column in half)
    columns = tuple(POLYNOMIAL if bit == 0 else 1 << (bit - 1) for bit in range(32))
    for _ in range(3):  # one zero bit, two, four, eight
        columns = tuple(_apply(columns, column) for column in columns)
    return columns


def _apply(columns: tuple[int, ...], number: int) -> int:
    result = 0
    for bit, column in enumerate(columns):
        if number >> bit & 1:
            result ^= column
    return result


def _span(columns: tuple[int, ...]) -> Words:
    """The map given by its columns, for every number of that many bits."""
    table = np.zeros(1, np.uint32)
    for column in columns:
        table = np.concatenate([table, table ^ np.uint32(column)])
    return table


@cache
def _word_tables() -> tuple[Words, Words]:
    columns = _columns(2)
    return _span(columns[:16]), _span(columns[16:])


@cache
def _byte_tables(power: int) -> tuple[Words, ...]:
    columns = _columns(power)
    return tuple(_span(columns[first : first + 8]) for first in range(0, 32, 8))


def _shifted(sums: Words, power: int) -> Words:
    """The sums when 2**power zero bytes follow."""
    one, two, three, four = _byte_tables(power)
    shifted: npt.NDArray[Any] = (
        one[sums & 0xFF] ^ two[sums >> 8 & 0xFF] ^ three[sums >> 16 & 0xFF] ^ four[sums >> 24]
    )
    return shifted
