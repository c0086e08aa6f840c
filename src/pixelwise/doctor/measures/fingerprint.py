"""Fingerprints of images: equal pixels, and images that look the same.

The second is a difference hash (Krawetz 2013) of 16 x 16 places in both directions, 512 bits, and a
small gray copy that confirms what the bits suggest. Both are of the reduced image, so another
compression or a little resizing changes few bits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 16
WORDS = 2 * GRID * GRID // 64
COPY = 24

MIN_CONTRAST = 4.0
"""Standard std in gray levels below which a copy is too flat to be recognized."""

MAX_BITS = 96
"""Of 512: candidates. CamVid at 0.8 of its size, JPEG quality 50: up to 63; unrelated: 152 up."""

MIN_CORRELATION = 0.985
"""Of the small copies, to be called near-duplicates."""


@dataclass(frozen=True)
class Fingerprint:
    """digest: of the decoded pixels. bits: (WORDS,) uint64. copy: (COPY * COPY,) gray, mean 0 and
    length 1; None where the image is too flat to be told from others."""

    digest: bytes
    bits: NDArray[np.uint64]
    copy: NDArray[np.float32] | None


def digest(pixels: NDArray[Any]) -> bytes:
    """16 bytes for the shape and the values of an array."""
    hashed = hashlib.blake2b(str((pixels.shape, pixels.dtype.str)).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(pixels).data)
    return hashed.digest()


def fingerprint(image: NDArray[np.uint8], gray: NDArray[np.uint8]) -> Fingerprint:
    """Of an image (H, W, 3) and its gray version (H, W)."""
    picture = Image.fromarray(gray)
    small = picture.resize((GRID + 1, GRID + 1), Image.Resampling.BOX, reducing_gap=2.0)
    cells = np.asarray(small, dtype=np.int16)
    across = cells[:GRID, 1:] > cells[:GRID, :-1]
    down = cells[1:, :GRID] > cells[:-1, :GRID]
    packed = np.packbits(np.concatenate([across.reshape(-1), down.reshape(-1)]))
    reduced = picture.resize((COPY, COPY), Image.Resampling.BOX, reducing_gap=2.0)
    copy = np.asarray(reduced, dtype=np.float32).reshape(-1)
    flat = float(copy.std()) < MIN_CONTRAST
    copy = copy - copy.mean()
    return Fingerprint(
        digest(image), packed.view(np.uint64), None if flat else copy / np.linalg.norm(copy)
    )


def near_pairs(left: list[Fingerprint], right: list[Fingerprint]) -> list[tuple[int, int, float]]:
    """(place in `left`, place in `right`, correlation) of each pair that looks the same.

    Compares all with all, `left` in blocks: 3000 by 3000 takes a fraction of a second.
    """
    one = [place for place, mark in enumerate(left) if mark.copy is not None]
    other = [place for place, mark in enumerate(right) if mark.copy is not None]
    if not one or not other:
        return []
    bits = np.stack([right[place].bits for place in other])
    copies = np.stack([_copy(right[place]) for place in other])
    found = []
    block = max(1, (1 << 22) // len(other))
    for begin in range(0, len(one), block):
        places = one[begin : begin + block]
        distances = np.zeros((len(places), len(other)), dtype=np.uint16)
        mine = np.stack([left[place].bits for place in places])
        for word in range(WORDS):
            distances += np.bitwise_count(mine[:, word, None] ^ bits[None, :, word])
        rows, columns = np.nonzero(distances <= MAX_BITS)
        if len(rows) == 0:
            continue
        own = np.stack([_copy(left[place]) for place in places])
        likeness = np.einsum("ij,ij->i", own[rows], copies[columns])
        found += [
            (places[row], other[column], float(value))
            for row, column, value in zip(rows, columns, likeness, strict=True)
            if value >= MIN_CORRELATION
        ]
    return found


def _copy(mark: Fingerprint) -> NDArray[np.float32]:
    assert mark.copy is not None
    return mark.copy
