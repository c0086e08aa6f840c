"""Tell masks from images by the words in their paths and by the content of a few files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pixelwise.data.image_files import read_raw
from pixelwise.data.matrix_files import MATRIX_SUFFIXES
from pixelwise.errors import InputError

MAX_MASK_COLORS = 64
"""Masks have fewer values or colors, photos have more."""

_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_MASK_TOKENS = re.compile(
    "anno?s?|cls|gts?|labs?|lbl|manual|matte|segs?|semantic|targets?", re.IGNORECASE
)
_MASK_PARTS = re.compile("mask|label|annot|truth|segment|trimap", re.IGNORECASE)
_IMAGE_TOKENS = re.compile(
    "color|data|frames?|imgs?|inputs?|jpe?g|org|orig|original|ortho|raw|rgb|sat|scenes?|source|src",
    re.IGNORECASE,
)
_IMAGE_PARTS = re.compile("image|photo", re.IGNORECASE)


@dataclass(frozen=True)
class Side:
    """One of two kinds of files that belong together.

    Attributes:
        names: The parts of the paths that the other kind does not have.
        files: A few of the files.
    """

    names: Sequence[str]
    files: Sequence[Path]

    @cached_property
    def has_mask_word(self) -> bool:
        return _has_word(self.names, _MASK_TOKENS, _MASK_PARTS)

    @cached_property
    def has_image_word(self) -> bool:
        return not self.has_mask_word and _has_word(self.names, _IMAGE_TOKENS, _IMAGE_PARTS)

    @cached_property
    def is_matrix(self) -> bool:
        return all(path.suffix.lower() in MATRIX_SUFFIXES for path in self.files)

    @cached_property
    def colors(self) -> int | None:
        """The largest number of colors or values in a file; None if none can be read."""
        counts = [_count_colors(path) for path in self.files]
        return max((count for count in counts if count is not None), default=None)

    @cached_property
    def has_few_colors(self) -> bool:
        return self.colors is not None and self.colors <= MAX_MASK_COLORS

    @property
    def may_be_images(self) -> bool:
        return not self.is_matrix and (self.has_image_word or not self.has_few_colors)

    @property
    def may_be_masks(self) -> bool:
        return self.is_matrix or self.has_mask_word or self.has_few_colors


def _has_word(names: Iterable[str], tokens: re.Pattern[str], parts: re.Pattern[str]) -> bool:
    """Whether a name contains one of the tokens as a whole word, or one of the parts."""
    return any(
        parts.search(name) or any(tokens.fullmatch(token) for token in _TOKEN.findall(name))
        for name in names
    )


def _count_colors(path: Path) -> int | None:
    try:
        pixels = read_raw(path).pixels
    except InputError:
        return None
    flat = np.ascontiguousarray(pixels.reshape(-1, pixels.shape[2]))
    # Most photos exceed the limit in the first rows.
    for part in (flat[:4096], flat):
        count = len(np.unique(part, axis=0))
        if count > MAX_MASK_COLORS:
            break
    return count


def mask_side(one: Side, other: Side) -> tuple[int, bool] | None:
    """Decide which of two kinds of files are masks.

    Returns:
        0 or 1, and whether the content confirms it; None if it is unclear. The content decides if
        only one kind has few colors and no word contradicts it. Otherwise, one kind must be called
        masks and the other one images.
    """
    sides = (one, other)
    if one.is_matrix != other.is_matrix:
        side = 0 if one.is_matrix else 1
        return (side, True) if sides[1 - side].may_be_images else None
    few = [side.has_few_colors for side in sides]
    called = [side.has_mask_word and not sides[1 - k].has_mask_word for k, side in enumerate(sides)]
    for k in (0, 1):
        if few[k] and not few[1 - k] and not called[1 - k]:
            return k, True
        if few[0] == few[1] and called[k] and sides[1 - k].has_image_word:
            return k, few[k]
    return None
