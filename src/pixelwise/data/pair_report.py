"""What decoding one image and its mask shows: problems, sizes, pixel and mask values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.channel_statistics import PixelSummary, summarize_pixels
from pixelwise.data.classes import pack_rgb
from pixelwise.data.image_files import read_raw, swapped_by_exif
from pixelwise.data.pixel_format import RawImage
from pixelwise.data.source import MaskFile, Sample
from pixelwise.errors import InputError

MAX_MASK_COLORS = 256
"""More colors than this in one RGB mask cannot be classes. Only the first ones are kept."""


@dataclass
class FileReport:
    """One file of a pair.

    Attributes:
        path: The file to name in error messages.
        problems: Lines for the user; empty if training can use the file.
        size: (height, width) of the upright pixels; (0, 0) if they could not be decoded.
    """

    path: Path
    problems: list[str] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)

    @property
    def readable(self) -> bool:
        return not self.problems


@dataclass
class ImageReport(FileReport):
    """An image; `summary` is None if it could not be decoded."""

    summary: PixelSummary | None = None


@dataclass
class MaskReport(FileReport):
    """A mask.

    Attributes:
        values: (K,) the values that occur, ascending; of an RGB mask the packed colors, at most
            MAX_MASK_COLORS + 1 of them.
        counts: (K,) number of pixels of each value.
        is_rgb: Whether `values` are colors.
        representative: False: class inference uses the values only if no mask is representative.
    """

    values: NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    is_rgb: bool = False
    representative: bool = True


@dataclass
class PairReport:
    """An image and its mask.

    Attributes:
        decoded: The decoded image and the stored mask, while they are kept in memory.
        checksum: Checksum of both, if they were decoded for training.
    """

    sample: Sample
    split: str
    image: ImageReport
    mask: MaskReport
    decoded: tuple[RawImage, NDArray[Any]] | None = None
    checksum: int = 0

    @property
    def usable(self) -> bool:
        """Whether both files are readable and of the same size."""
        same_size = self.image.size == self.mask.size
        return self.image.readable and self.mask.readable and same_size

    @property
    def problems(self) -> list[str]:
        """The problems of both files, and the size mismatch if there is one."""
        problems = self.image.problems + self.mask.problems
        if problems or self.usable:
            return problems
        (height, width), (mask_height, mask_width) = self.image.size, self.mask.size
        remedy = "make them the same size"
        if (mask_height, mask_width) == (width, height) and swapped_by_exif(self.image.path):
            remedy = "the EXIF orientation rotates the image, rotate the mask the same way"
        return [
            f"{self.mask.path}: the mask is {mask_width}x{mask_height} but its image "
            f"{self.image.path.name} is {width}x{height}: {remedy}"
        ]


def decode_pair(pair: PairReport) -> tuple[RawImage | None, NDArray[Any] | None]:
    """Decode both files once and fill in the reports.

    Returns:
        The image and the mask (H, W) or (H, W, 3) as stored; None for what cannot be read.
    """
    image, mask, sample = pair.image, pair.mask, pair.sample
    raw = stored = None
    try:
        raw = read_raw(sample.image)
        image.size, image.summary = raw.size, summarize_pixels(raw)
    except InputError as error:
        image.problems += error.problems
    try:
        if raw is not None:
            stored = sample.mask.read(raw.size)
        elif isinstance(sample.mask, MaskFile):  # other masks are drawn to the size of the image
            stored = sample.mask.read((0, 0))
    except InputError as error:
        mask.problems += error.problems
    if stored is not None:
        mask.size, mask.is_rgb = (stored.shape[0], stored.shape[1]), stored.ndim == 3
        mask.values, mask.counts = _count_values(stored)
    return raw, stored


def _count_values(stored: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if stored.ndim == 2:
        counts = np.bincount(stored.reshape(-1))
        values = np.flatnonzero(counts)
        return values.astype(stored.dtype), counts[values]
    colors, counts = np.unique(pack_rgb(stored), return_counts=True)
    return colors[: MAX_MASK_COLORS + 1], counts[: MAX_MASK_COLORS + 1]
