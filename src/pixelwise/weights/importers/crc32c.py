"""CRC-32C (Castagnoli, RFC 3720) with NumPy: the checksum of TensorFlow's checkpoints.

Pure Python takes a minute per hundred megabytes, and a package would be one more requirement for a
single number. Without its two inversions a CRC is linear over bits. So the data are split into
lanes that are processed in parallel, and their checksums are combined pair by pair: the left one is
shifted past the bytes of the right one. Leading zeros change nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
Bytes = bytes | npt.NDArray[np.uint8]

POLYNOMIAL = 0x82F63B78  # the lowest power is the highest bit
INVERTED = 0xFFFFFFFF
MASK_DELTA = 0xA282EAD8  # as in LevelDB and TensorFlow


def crc32c(data: Bytes) -> int:
    """Compute the CRC-32C of bytes, or of a uint8 array."""
    bytes_ = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    if len(bytes_) < 4:
        return _short(bytes_.tobytes())
    words = -(-len(bytes_) // 4)
    steps = 2 ** max(0, words.bit_length() // 2 - 2)
    lanes = -(-words // steps)
    padded = np.zeros(lanes * steps * 4, np.uint8)
    start = len(padded) - len(bytes_)
    padded[start:] = bytes_
    padded[start : start + 4] ^= 0xFF  # equivalent to an initial value of all ones
    columns = np.ascontiguousarray(padded.view("<u4").reshape(lanes, steps).T)
    low, high = _word_tables()
    sums = np.zeros(lanes, np.uint32)
    for column in columns:
        sums = sums ^ column
        sums = low[sums & 0xFFFF] ^ high[sums >> 16]
    length = steps.bit_length() + 1  # log2 of the bytes per lane
    while len(sums) > 1:
        if len(sums) % 2:
            sums = np.concatenate([np.zeros(1, np.uint32), sums])
        sums = _shifted(sums[0::2], length) ^ sums[1::2]
        length += 1
    return int(sums[0]) ^ INVERTED


def masked_crc32c(data: Bytes) -> int:
    """Compute the CRC-32C as LevelDB and TensorFlow store it.

    The mask avoids special values when a CRC is computed over data that contain CRCs.
    """
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
    """The effect of 2**power further zero bytes on each of the 32 bits of a checksum."""
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
    """Tabulate the linear map with these columns for every number with that many bits."""
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
    """The checksums after 2**power further zero bytes."""
    one, two, three, four = _byte_tables(power)
    shifted: npt.NDArray[Any] = (
        one[sums & 0xFF] ^ two[sums >> 8 & 0xFF] ^ three[sums >> 16 & 0xFF] ^ four[sums >> 24]
    )
    return shifted
