"""The doctor's measurements of one pair, in addition to what training reads from it.

Whether a file is usable is decided by the scan that training uses (`pixelwise.data.dataset_scan`),
so that the doctor and training cannot disagree. The measurements here explain why it is not, and
find problems that do not stop training.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.channel_statistics import PixelSummary, choose_format, summarize_pixels
from pixelwise.data.classes import pack_rgb
from pixelwise.data.connected_components import objects
from pixelwise.data.dataset_scan import DatasetScan
from pixelwise.data.pair_report import ImageReport, MaskReport, PairReport, decode_pair
from pixelwise.data.pixel_format import RawImage, as_shown
from pixelwise.data.polygons import RegionMask
from pixelwise.data.source import Sample
from pixelwise.doctor.file_header import FileHeader, read_header
from pixelwise.doctor.measures.alignment import Agreement, agreement
from pixelwise.doctor.measures.fingerprint import Fingerprint, digest, fingerprint
from pixelwise.errors import InputError

MAX_LEVELS = 256
"""More values or colors than this in one mask cannot be classes."""
MAX_OBJECT_PIXELS = 1 << 24
"""Larger masks are subsampled by an integer step before their objects are counted."""
MIN_BLENDED = 0.25
"""Minimum fraction of blended borders in a mask that counts as smoothed. Masks of pure classes have
almost none; smoothed masks a third and more, because each border adds a pixel in between."""


@dataclass
class InspectedImage(ImageReport):
    """An image with measurements of its 8-bit RGB version.

    Attributes:
        header: The beginning of the file.
        gray_mean: Mean of the gray version.
        gray_std: Std of the gray version.
        is_gray: Whether all three channels are equal, even if the file stores three.
        fingerprint: For the search for duplicates; None for images that are flat or unreadable.
    """

    header: FileHeader = field(default_factory=FileHeader)
    gray_mean: float = 0.0
    gray_std: float = 0.0
    is_gray: bool = False
    fingerprint: Fingerprint | None = None


@dataclass
class InspectedMask(MaskReport):
    """A mask with the doctor's measurements.

    Attributes:
        header: The beginning of the file.
        blended: Fraction of the borders that are blended, 0..1.
        digest: Of the stored values.
        object_values: (N,) index into `values` of each connected component.
        object_areas: (N,) area of each connected component in pixels.
    """

    header: FileHeader = field(default_factory=FileHeader)
    blended: float = 0.0
    digest: bytes = b""
    object_values: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    object_areas: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def replace_values(self, values: NDArray[Any], *, is_rgb: bool) -> NDArray[np.intp]:
        index = super().replace_values(values, is_rgb=is_rgb)
        self.object_values = index[self.object_values]
        return index

    @property
    def too_many(self) -> bool:
        return len(self.values) > MAX_LEVELS

    @property
    def smoothed(self) -> bool:
        """Whether the mask holds values that were blended from neighboring values."""
        return self.too_many or self.blended >= MIN_BLENDED


@dataclass
class InspectedPair(PairReport):
    """A pair with the agreement of its edges.

    Attributes:
        agreement: Agreement of image and mask as stored; None if it cannot be measured.
        exif_agreement: Agreement with the mask transposed as EXIF transposes the image.
    """

    image: InspectedImage
    mask: InspectedMask
    agreement: Agreement | None = None
    exif_agreement: Agreement | None = None


Scan = DatasetScan[InspectedPair]


def inspect_pair(sample: Sample, split: str) -> InspectedPair:
    """Decode both files once and measure them. Raises nothing, whatever the files hold."""
    image = InspectedImage(sample.image, header=read_header(sample.image))
    mask = InspectedMask(sample.mask.path, header=read_header(sample.mask.path))
    pair = InspectedPair(sample, split, image, mask)
    raw, stored = decode_pair(pair)
    gray = None if raw is None else _measure_image(image, to_display(raw, image.summary))
    levels = None if stored is None else _measure_mask(mask, stored)
    if gray is not None and levels is not None and image.size == mask.size:
        pair.agreement = agreement(gray, levels)
        if image.header.transpose is not None:
            unrotated = _levels_without_exif(pair, levels)
            transposed = np.asarray(Image.fromarray(unrotated).transpose(image.header.transpose))
            if transposed.shape == gray.shape:
                pair.exif_agreement = agreement(gray, transposed)
    return pair


def _levels_without_exif(pair: InspectedPair, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the levels that the mask would have if it were made on the image without its EXIF.

    Polygons are rasterized to the size of the stored image; other masks stay as they are.
    """
    mask = pair.sample.mask
    if isinstance(mask, RegionMask) and pair.image.header.swaps_sides:
        with suppress(InputError):  # run-length encoded regions have a size of their own
            stored = replace(mask, size=None, frame=None).read(pair.image.size[::-1])
            found = to_levels(stored, pair.mask)
            return levels if found is None else found
    return levels


def to_display(raw: RawImage, summary: PixelSummary | None = None) -> NDArray[np.uint8]:
    """Convert a decoded image to 8-bit RGB (H, W, 3), scaled by its own value range."""
    pixels, _ = choose_format([summary or summarize_pixels(raw)])
    return as_shown(pixels.scale(pixels.select(raw, "image")))


def _measure_image(image: InspectedImage, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fill in the measurements of an image (H, W, 3) and return its gray version (H, W)."""
    image_rgb = Image.fromarray(rgb)
    red, green, blue = np.array(image_rgb.histogram()).reshape(3, 256)
    # Comparing histograms is cheap; the channels are compared only if these are equal.
    image.is_gray = bool(
        (red == green).all()
        and (red == blue).all()
        and (rgb[..., 0] == rgb[..., 1]).all()
        and (rgb[..., 0] == rgb[..., 2]).all()
    )
    gray_image = image_rgb.convert("L")
    gray = np.asarray(gray_image)
    counts, levels = np.array(gray_image.histogram(), dtype=np.float64), np.arange(256.0)
    image.gray_mean = float(counts @ levels / counts.sum())
    variance = counts @ levels**2 / counts.sum() - image.gray_mean**2
    image.gray_std = float(np.sqrt(max(0.0, variance)))
    image.fingerprint = fingerprint(rgb, gray)
    return gray


def _measure_mask(mask: InspectedMask, stored: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Fill in the measurements of a mask; return its levels, None for too many values."""
    if stored.size == 0:
        return None
    mask.digest = digest(stored)
    if stored.ndim == 2 and 2 < len(mask.values) <= MAX_LEVELS:
        mask.blended = blended_borders(stored)
    mask.representative = not mask.smoothed
    levels = to_levels(stored, mask)
    if levels is not None:
        step = int(np.ceil(np.sqrt(levels.size / MAX_OBJECT_PIXELS)))
        values, areas = objects(np.ascontiguousarray(levels[::step, ::step]))
        mask.object_values, mask.object_areas = values.astype(np.intp), areas * step**2
    return levels


def to_levels(stored: NDArray[Any], mask: InspectedMask) -> NDArray[np.uint8] | None:
    """Replace each value or color of a mask by its index in `mask.values`: (H, W).

    Returns None if the mask has too many values.
    """
    if mask.too_many:
        return None
    if stored.dtype == np.uint8 and stored.ndim == 2:
        table = np.zeros(256, dtype=np.uint8)
        table[mask.values] = np.arange(len(mask.values))
        return np.asarray(table[stored])
    packed = pack_rgb(stored) if stored.ndim == 3 else stored
    return np.searchsorted(mask.values, packed).astype(np.uint8)


def blended_borders(mask: NDArray[Any]) -> float:
    """Return the fraction of the horizontal borders of a mask (H, W) that are blended, 0..1.

    A pixel whose value is strictly between those to its left and right was blended from them. In a
    mask of pure classes this takes a strip one pixel wide with just such a value.
    """
    wide = mask.astype(np.int32)
    steps = wide[:, 1:] - wide[:, :-1]
    borders = int(np.count_nonzero(steps))
    between = int(np.count_nonzero(steps[:, 1:] * steps[:, :-1] > 0))
    return between / borders if borders else 0.0
