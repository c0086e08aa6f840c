"""Run-length encoded masks: of COCO, compressed or not, and of Label Studio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError


@dataclass(frozen=True, eq=False)
class CocoRLE:
    """COCO's encoding: lengths of runs in column-major order, starting outside the object.

    Args:
        value: Value in the mask.
        counts: The run lengths, or COCO's compressed string.
        size: (height, width) of the mask.
    """

    value: int
    counts: tuple[int, ...] | str
    size: tuple[int, int]

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        if self.size != size:
            raise InputError(
                f"an RLE mask is {self.size[1]}x{self.size[0]} but the image is {size[1]}x"
                f"{size[0]}: correct the size"
            )
        counts = self.counts
        return decode_counts(decode_compressed(counts) if isinstance(counts, str) else counts, size)


def decode_counts(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode COCO run lengths to (H, W). Raises InputError if they do not cover the mask."""
    try:
        runs = np.array(counts, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("RLE counts are not integers: correct them") from error
    total = size[0] * size[1]
    if runs.ndim != 1 or (runs < 0).any() or (runs > total).any() or runs.sum() != total:
        raise InputError(
            f"RLE counts cover {runs.sum()} pixels but the image has {total}: correct them"
        )
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size, order="F")


def decode_compressed(text: str) -> list[int]:
    """Decode the run lengths in COCO's compressed string.

    Each character, minus chr(48), holds five bits of a number, low bits first. The sixth bit marks
    that more follow, and the highest of the last five bits is the sign. From the fourth number on,
    each is the difference to the number two before it. (pycocotools decodes this too, but does not
    validate the string.)

    Raises:
        InputError: If it is not such a string.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise InputError(
                f"compressed RLE has the invalid character {character!r}: export the file again"
            )
        number |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise InputError("compressed RLE is cut off: export the file again")
    return runs


@dataclass(frozen=True, eq=False)
class BrushRLE:
    """Label Studio's encoding of a brush: RGBA bytes per pixel, of which alpha is the stroke."""

    value: int
    packed: bytes
    size: tuple[int, int]

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        if self.size != size:
            raise InputError(
                f"a brush mask is {self.size[1]}x{self.size[0]} but the image is {size[1]}x"
                f"{size[0]}: correct original_width and original_height"
            )
        numbers = decode_rle_pack(self.packed, count=size[0] * size[1] * 4)
        return np.asarray(numbers.reshape(*size, 4)[..., 3] > 127)


def decode_rle_pack(packed: bytes, *, count: int) -> NDArray[np.uint8]:
    """Decode a stream of @thi.ng/rle-pack, which Label Studio uses, to `count` bytes.

    A bit stream, most significant bit first. The header has 32 bits for the number of words, 5 for
    the bits per word - 1, and four times 4 for the bits per length - 1. Each run has one bit (1:
    one word repeated, 0: literal words), two bits that select one of the four lengths, the length
    - 1, and the word or words.

    Raises:
        InputError: If it is not such a stream of `count` bytes.
    """
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8))
    stream = _Bits(bits)
    try:
        words, width = stream.take(32), stream.take(5) + 1
        lengths = [stream.take(4) + 1 for _ in range(4)]
        if words != count or width != 8:
            raise InputError(
                f"brush RLE has {words} words of {width} bits, expected {count} of 8 bits: "
                "export the task again"
            )
        out = np.empty(count, dtype=np.uint8)
        at = 0
        while at < count:
            repeated = stream.take(1)
            end = at + 1 + stream.take(lengths[stream.take(2)])
            if end > count:
                raise EOFError
            out[at:end] = stream.take(8) if repeated else stream.words(end - at)
            at = end
    except EOFError as error:
        raise InputError("brush RLE is cut off or damaged: export the task again") from error
    return out


class _Bits:
    """Read numbers of any width from a bit stream; raises EOFError at its end."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self.bits = bits
        self.at = 0

    def _next(self, count: int) -> NDArray[np.uint8]:
        bits: NDArray[np.uint8] = self.bits[self.at : self.at + count]
        if len(bits) < count:
            raise EOFError
        self.at += count
        return bits

    def take(self, count: int) -> int:
        number = 0
        for bit in self._next(count).tolist():
            number = number << 1 | bit
        return int(number)

    def words(self, count: int) -> NDArray[np.uint8]:
        return np.packbits(self._next(8 * count))


def whole_numbers(value: Any) -> tuple[int, ...] | None:
    """Return a JSON list of integers as a tuple, or None if it is not one."""
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        return None
    return tuple(value)


def encode_counts(covered: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Encode a mask (H, W) as COCO's run lengths, which `decode_counts` reads."""
    flat = covered.reshape(-1, order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return np.asarray(np.diff(changes, prepend=0, append=flat.size))


def encode_compressed(covered: NDArray[np.bool_], left: int = 0, right: int = 0) -> str:
    """Encode a mask as COCO's compressed string, which `decode_compressed` reads.

    Args:
        covered: (H, N) the pixels of the columns of an object.
        left: Number of columns before these.
        right: Number of columns after these.
    """
    counts = encode_counts(covered)
    counts[0] += left * len(covered)
    if counts.size % 2:
        counts[-1] += right * len(covered)
    elif right:
        counts = np.append(counts, right * len(covered))
    characters = bytearray()
    for number in np.concatenate([counts[:3], counts[3:] - counts[1:-2]]).tolist():
        rest = number
        while True:
            code, rest = rest & 31, rest >> 5
            more = rest != (-1 if code & 16 else 0)
            characters.append(48 + (code | 32 if more else code))
            if not more:
                break
    return characters.decode("ascii")


_LENGTHS = (3, 4, 8, 16)
"""Bits for the length of a run, as Label Studio chooses them."""


def encode_brush(covered: NDArray[np.bool_]) -> list[int]:
    """Encode a mask (H, W) as Label Studio's brush, which `BrushRLE` reads: a list of bytes."""
    flat = covered.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    most = 1 << _LENGTHS[-1]
    bits = [f"{4 * flat.size:032b}{8 - 1:05b}", *(f"{length - 1:04b}" for length in _LENGTHS)]
    for start, pixels in zip(starts.tolist(), np.diff(starts, append=flat.size), strict=True):
        word = "11111111" if flat[start] else "00000000"
        for done in range(0, 4 * int(pixels), most):
            last = min(most, 4 * int(pixels) - done) - 1
            kind = next(k for k, length in enumerate(_LENGTHS) if last < 1 << length)
            bits.append(f"1{kind:02b}{last:0{_LENGTHS[kind]}b}{word}")
    text = "".join(bits)
    count = -(-len(text) // 8)
    return list(int(text.ljust(8 * count, "0"), 2).to_bytes(count, "big"))
