"""Run-length codings of masks: COCO's, compressed or not, and Label Studio's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError


@dataclass(frozen=True, eq=False)
class CocoRLE:
    """COCO's coding: lengths of runs down the columns, the first of pixels outside.

    counts: the lengths, or COCO's compressed text.
    stated: (height, width) of the mask.
    """

    value: int
    counts: tuple[int, ...] | str
    stated: tuple[int, int]

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        if self.stated != size:
            raise InputError(
                f"an RLE mask is {self.stated[1]}x{self.stated[0]} and the image {size[1]}x"
                f"{size[0]}: correct the size"
            )
        counts = self.counts
        return decode_counts(decode_compressed(counts) if isinstance(counts, str) else counts, size)


def decode_counts(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (H, W) of uncompressed COCO runs. Raises InputError where they do not fill it."""
    try:
        runs = np.array(counts, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("RLE counts are not whole numbers: correct them") from error
    total = size[0] * size[1]
    if runs.ndim != 1 or (runs < 0).any() or (runs > total).any() or runs.sum() != total:
        raise InputError(
            f"RLE counts cover {runs.sum()} pixels and the image has {total}: correct them"
        )
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size, order="F")


def decode_compressed(text: str) -> list[int]:
    """The run lengths in COCO's compressed text. Raises InputError where it is no such text.

    Five bits a character from chr(48) on, low bits first; the sixth says that the number goes on,
    and the highest bit of its last five is the sign. From the fourth number on each is the
    difference to the one two before it. (pycocotools decodes this too, but trusts the text; to
    know that it can be trusted is to have decoded it.)
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise InputError(f"compressed RLE holds {character!r}: export the file again")
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
    """Label Studio's coding of a brush: four bytes a pixel, of which the last is the stroke."""

    value: int
    packed: bytes
    stated: tuple[int, int]

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        if self.stated != size:
            raise InputError(
                f"a brush mask is {self.stated[1]}x{self.stated[0]} and the image {size[1]}x"
                f"{size[0]}: correct original_width and original_height"
            )
        numbers = decode_rle_pack(self.packed, count=size[0] * size[1] * 4)
        return np.asarray(numbers.reshape(*size, 4)[..., 3] > 127)


def decode_rle_pack(packed: bytes, *, count: int) -> NDArray[np.uint8]:
    """The `count` bytes of a stream of @thi.ng/rle-pack, which Label Studio uses.

    A stream of bits, the highest of a byte first: 32 for the number of words, 5 for the bits of a
    word less one, four times 4 for the bits of a length less one; then runs: one bit (1: a word
    repeated, 0: words as they are), two bits for which of the four lengths, the length less one,
    the word or words. Raises InputError where it is not such a stream of `count` bytes.
    """
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8))
    stream = _Bits(bits)
    try:
        words, width = stream.take(32), stream.take(5) + 1
        lengths = [stream.take(4) + 1 for _ in range(4)]
        if words != count or width != 8:
            raise InputError(
                f"brush RLE holds {words} words of {width} bits, {count} of 8 were expected: "
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
    """A reader of numbers of any width from a stream of bits; EOFError behind its end."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self.bits = bits
        self.at = 0

    def _next(self, count: int) -> NDArray[np.uint8]:
        part: NDArray[np.uint8] = self.bits[self.at : self.at + count]
        if len(part) < count:
            raise EOFError
        self.at += count
        return part

    def take(self, count: int) -> int:
        number = 0
        for bit in self._next(count).tolist():
            number = number << 1 | bit
        return int(number)

    def words(self, count: int) -> NDArray[np.uint8]:
        return np.packbits(self._next(8 * count))


def whole_numbers(value: Any) -> tuple[int, ...] | None:
    """A JSON list of whole numbers as a tuple, or None if it is not one."""
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        return None
    return tuple(value)
