"""Fingerprints that find equal and similar images.

Similar images are found by a difference hash (Krawetz 2013) of a 16 x 16 grid in both directions,
512 bits, and confirmed by a gray thumbnail. Both come from the reduced image, so that another
compression or slight resizing changes few bits.
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
THUMBNAIL = 24

MIN_CONTRAST = 4.0
"""Std in gray levels below which a thumbnail is too flat to be compared."""

MAX_BITS = 96
"""Maximum number of differing bits (of 512) for a candidate. CamVid at 0.8 of its size and JPEG
quality 50 differs in up to 63 bits; unrelated images differ in at least 152."""

MIN_CORRELATION = 0.985
"""Correlation of the thumbnails of near-duplicates."""


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of an image.

    Attributes:
        digest: Of the decoded pixels.
        bits: (WORDS,) uint64, the difference hash.
        thumbnail: (THUMBNAIL * THUMBNAIL,) gray, with mean 0 and norm 1.
    """

    digest: bytes
    bits: NDArray[np.uint64]
    thumbnail: NDArray[np.float32]


def digest(pixels: NDArray[Any]) -> bytes:
    """Return a 16-byte digest of the shape and the values of an array."""
    hashed = hashlib.blake2b(str((pixels.shape, pixels.dtype.str)).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(pixels).data)
    return hashed.digest()


def fingerprint(rgb: NDArray[np.uint8], gray: NDArray[np.uint8]) -> Fingerprint | None:
    """Compute the fingerprint of an image (H, W, 3) and its gray version (H, W).

    Returns None for an image that is too flat to be compared.
    """
    gray_image = Image.fromarray(gray)
    small = gray_image.resize((GRID + 1, GRID + 1), Image.Resampling.BOX, reducing_gap=2.0)
    cells = np.asarray(small, dtype=np.int16)
    across = cells[:GRID, 1:] > cells[:GRID, :-1]
    down = cells[1:, :GRID] > cells[:-1, :GRID]
    packed = np.packbits(np.concatenate([across.reshape(-1), down.reshape(-1)]))
    reduced = gray_image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX, reducing_gap=2.0)
    thumbnail = np.asarray(reduced, dtype=np.float32).reshape(-1)
    if float(thumbnail.std()) < MIN_CONTRAST:
        return None
    thumbnail = thumbnail - thumbnail.mean()
    return Fingerprint(digest(rgb), packed.view(np.uint64), thumbnail / np.linalg.norm(thumbnail))


def near_pairs(left: list[Fingerprint], right: list[Fingerprint]) -> list[tuple[int, int, float]]:
    """Find similar images.

    Compares all with all, `left` in blocks: 3000 by 3000 takes a fraction of a second.

    Returns:
        (index in `left`, index in `right`, correlation) of each similar pair.
    """
    if not right:
        return []
    bits = np.stack([image.bits for image in right])
    thumbnails = np.stack([image.thumbnail for image in right])
    found = []
    size = max(1, (1 << 22) // len(right))
    for begin in range(0, len(left), size):
        block = left[begin : begin + size]
        distances = np.zeros((len(block), len(right)), dtype=np.uint16)
        block_bits = np.stack([image.bits for image in block])
        for word in range(WORDS):
            distances += np.bitwise_count(block_bits[:, word, None] ^ bits[None, :, word])
        rows, columns = np.nonzero(distances <= MAX_BITS)
        if len(rows) == 0:
            continue
        block_thumbnails = np.stack([image.thumbnail for image in block])
        correlations = np.einsum("ij,ij->i", block_thumbnails[rows], thumbnails[columns])
        found += [
            (begin + int(row), int(column), float(correlation))
            for row, column, correlation in zip(rows, columns, correlations, strict=True)
            if correlation >= MIN_CORRELATION
        ]
    return found
