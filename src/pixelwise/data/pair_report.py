"""What decoding one image and its mask shows: problems, sizes, pixel and mask values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.channel_statistics import PixelSummary, summarize_pixels
from pixelwise.data.classes import pack_rgb
from pixelwise.data.image_files import swapped_by_exif
from pixelwise.data.mask_files import MaskReading, StoredMask, read_stored_mask
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
        palette: (N, 3) the color of each value in a palette mask, or None.
        top: The value of a gray mask that is shown as white.
        representative: False: class inference uses the values only if no mask is representative.
    """

    values: NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    is_rgb: bool = False
    palette: NDArray[np.uint8] | None = None
    top: int = 255
    representative: bool = True

    def values_by(self, reading: MaskReading) -> NDArray[Any]:
        """Return (K,) what each of `values` is by another reading: packed colors, or gray tones.

        Raises:
            InputError: If a value is not in the palette.
        """
        values = unpack_colors(self.values) if self.is_rgb else self.values[:, None]
        stored = StoredMask(values[None] if self.is_rgb else values, self.palette, self.top)
        found = stored.read_by(reading, self.path)
        return pack_rgb(found).reshape(-1) if reading is MaskReading.COLORS else found.reshape(-1)

    def replace_values(self, values: NDArray[Any], *, is_rgb: bool) -> NDArray[np.intp]:
        """Replace each of `values`; equal ones are merged.

        Returns:
            (K,) index into the new `values` of each earlier one.
        """
        new, index = np.unique(values, return_inverse=True)
        counts = np.bincount(index, weights=self.counts, minlength=len(new)).astype(np.int64)
        self.values, self.counts, self.is_rgb = new, counts, is_rgb
        return index


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
        raw = sample.read_raw()
        image.size, image.summary = raw.size, summarize_pixels(raw)
    except InputError as error:
        image.problems += error.problems
    try:
        if isinstance(sample.mask, MaskFile):
            file = read_stored_mask(sample.mask.path)
            stored = file.read_by(sample.mask.reading, sample.mask.path)
            mask.palette, mask.top = file.palette, file.top
        elif raw is not None:  # other masks are drawn to the size of the image
            stored = sample.mask.read(raw.size)
    except InputError as error:
        mask.problems += error.problems
    if stored is not None:
        mask.size, mask.is_rgb = (stored.shape[0], stored.shape[1]), stored.ndim == 3
        mask.values, mask.counts = _count_values(stored)
    return raw, stored


def unpack_colors(packed: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return packed colors (K,) as (K, 3)."""
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)


def reread(pair: PairReport, reading: MaskReading) -> None:
    """Read the mask file of a pair by another reading from now on, and convert its report.

    Raises:
        InputError: If a value is not in the palette.
    """
    mask = pair.mask
    values = mask.values_by(reading)
    if pair.decoded is not None:
        raw, stored = pair.decoded
        found = StoredMask(stored, mask.palette, mask.top).read_by(reading, mask.path)
        pair.decoded = raw, found
    mask.replace_values(values, is_rgb=reading is MaskReading.COLORS)
    pair.sample = replace(pair.sample, mask=MaskFile(mask.path, reading))


def _count_values(stored: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if stored.ndim == 2:
        counts = np.bincount(stored.reshape(-1))
        values = np.flatnonzero(counts)
        return values.astype(stored.dtype), counts[values]
    colors, counts = np.unique(pack_rgb(stored), return_counts=True)
    return colors[: MAX_MASK_COLORS + 1], counts[: MAX_MASK_COLORS + 1]
