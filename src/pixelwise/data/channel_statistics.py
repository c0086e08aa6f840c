"""Choose the pixel format of a dataset from its images, and compute mean and std per channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.pixel_format import PixelFormat, RawImage
from pixelwise.errors import InputError

SAMPLED = 1024
"""Number of evenly spaced pixels per image, of more than 8 bits, that determine the value range."""
OUTER = 0.001
"""Fraction of values beyond the range at each end, so that a hot pixel does not darken the rest."""
OPAQUE = 0.9
"""A last channel is alpha if at least this fraction is fully transparent or fully opaque."""


@dataclass(frozen=True)
class PixelSummary:
    """Summary of a decoded image, kept after its pixels are freed.

    Attributes:
        example: The image cropped to one pixel, for its type and channels.
        looks_like_alpha: Whether a last channel labeled alpha holds alpha-like values.
        sample: (N,) stored values of the first three channels; empty for 8-bit images.
        pixels: Number of pixels.
        sums: (C,) sum of the values per channel, float64.
        squares: (C,) sum of the squared values per channel, float64.
    """

    example: RawImage
    looks_like_alpha: bool
    sample: NDArray[np.float32]
    pixels: int
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]


def summarize_pixels(raw: RawImage) -> PixelSummary:
    """Summarize a decoded image; pixels without data are left out."""
    pixels = raw.pixels
    if raw.missing is not None:
        pixels = pixels[~raw.missing][None]
        raw = replace(raw, pixels=raw.pixels[:1, :1], missing=None)
    height, width, stored = pixels.shape
    looks_like_alpha = True
    if raw.alpha:
        last = pixels[..., -1]
        top = np.iinfo(last.dtype).max if last.dtype.kind == "u" else last.max()
        looks_like_alpha = bool(np.count_nonzero((last == 0) | (last == top)) >= OPAQUE * last.size)
    if raw.dtype == "uint8":
        sample = np.empty(0, dtype=np.float32)
        counts, levels = _histogram(pixels), np.arange(256.0)
        sums, squares = counts @ levels, counts @ levels**2
    else:
        step = max(1, int(np.sqrt(height * width / SAMPLED)))
        across = step if height > 1 else step**2  # pixels without data leave a single row
        sample = pixels[::step, ::across, :3].astype(np.float32).reshape(-1)
        sums, squares = np.zeros(stored), np.zeros(stored)
        for channel in range(stored):
            wide = pixels[..., channel].astype(np.float64)
            sums[channel], squares[channel] = wide.sum(), np.square(wide).sum()
    example = replace(raw, pixels=raw.pixels[:1, :1].copy())
    return PixelSummary(example, looks_like_alpha, sample, height * width, sums, squares)


def _histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return (C, 256): the number of pixels of each value in 8-bit (H, W, C)."""
    if not pixels.size:
        return np.zeros((pixels.shape[2], 256))
    if pixels.shape[2] == 3:
        counted = Image.fromarray(pixels).histogram()
    else:
        channels = (np.ascontiguousarray(pixels[..., c]) for c in range(pixels.shape[2]))
        counted = [count for c in channels for count in Image.fromarray(c).histogram()]
    return np.array(counted, dtype=np.float64).reshape(-1, 256)


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and std of each channel over all pixels, in units of 0..255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def rescaled(self, before: PixelFormat, now: PixelFormat) -> ChannelStatistics:
        """Return the statistics of the same images under another value range."""
        (low, high), (new_low, new_high) = before.value_range, now.value_range
        factor = (high - low) / (new_high - new_low)
        shift = 255 * (low - new_low) / (new_high - new_low)
        return ChannelStatistics(
            tuple(mean * factor + shift for mean in self.mean),
            tuple(std * factor for std in self.std),
        )


def choose_format(
    summaries: Sequence[PixelSummary],
    *,
    channels: int | None = None,
    value_range: tuple[float, float] | None = None,
    range_from: Iterable[PixelSummary] | None = None,
) -> tuple[PixelFormat, list[str]]:
    """Choose the format that most images have.

    Args:
        summaries: One per image.
        channels: Number of channels, if it is given.
        value_range: Stored values that become 0 and 255, if they are given.
        range_from: The images that determine the value range (the training images); None or empty
            for all.

    Returns:
        The format, and notes for the user about what was decided.
    """
    labeled = [summary for summary in summaries if summary.example.unsure_alpha]
    as_data = sum(not summary.looks_like_alpha for summary in labeled) * 2 > len(labeled)
    notes: list[str] = []
    votes: Counter[tuple[int, str]] = Counter()
    for summary in summaries:
        raw = summary.example
        stored = raw.pixels.shape[2] if raw.unsure_alpha and as_data else raw.channels
        votes[stored, raw.dtype] += 1
    if not votes:
        return PixelFormat(channels or 3), notes
    (most, dtype), _ = votes.most_common(1)[0]
    if as_data and channels is None and most == labeled[0].example.pixels.shape[2]:
        notes.append(
            f"the last of {most} channels is labeled alpha but holds other values than opaque and "
            f"transparent: it is used as data (--set data.channels={most - 1} drops it)"
        )
    if value_range is None:
        same = [s for s in range_from or summaries if s.example.dtype == dtype] or summaries
        value_range, note = find_range(dtype, np.concatenate([s.sample for s in same]))
        if note:
            notes.append(f"{note} (--set data.value_range changes this)")
    return PixelFormat(channels or most, dtype, value_range), notes


def find_range(dtype: str, sample: NDArray[np.float32]) -> tuple[tuple[float, float], str]:
    """Return the values that become 0 and 255, and a note if there was a choice."""
    if dtype == "uint8":
        return (0.0, 255.0), ""
    low, high = (float(value) for value in np.quantile(sample, (OUTER, 1 - OUTER)))
    if dtype == "uint16":
        bits = max(8, int(np.ceil(high)).bit_length())
        top = float(2**bits - 1)
        return (0.0, top), f"16-bit images use {bits} bits: values 0 to {top:g} become 0 to 255"
    if sample.min() >= 0 and sample.max() <= 1 and high > 0:
        return (0.0, 1.0), "floating-point images hold 0 to 1: these values become 0 to 255"
    if sample.min() >= 0 and high > 1 and sample.max() <= 255:
        return (0.0, 255.0), "floating-point images hold 0 to 255: their values are kept"
    if high <= low:
        high = low + 1
    return (low, high), (
        f"floating-point images: {low:g} to {high:g}, which hold 99.8 % of the training values, "
        "become 0 to 255"
    )


def compute_statistics(
    summaries: Iterable[PixelSummary], pixel_format: PixelFormat
) -> ChannelStatistics:
    """Compute mean and std of each channel over the images that have this format."""
    channels = pixel_format.channels
    pixels = 0
    sums, squares = np.zeros(channels), np.zeros(channels)
    for summary in summaries:
        try:
            pixel_format.select(summary.example, Path())
        except InputError:
            continue  # the scan reports it
        # A gray image becomes RGB: its one sum is added to all channels.
        used = slice(0, channels if len(summary.sums) >= channels else 1)
        pixels += summary.pixels
        sums += summary.sums[used]
        squares += summary.squares[used]
    low, high = pixel_format.value_range
    per_unit = 255 / (high - low)
    means = sums / max(1, pixels)
    variances = np.maximum(0, squares / max(1, pixels) - means**2)
    return ChannelStatistics(
        tuple(float(mean) for mean in (means - low) * per_unit),
        tuple(float(std) for std in np.sqrt(variances) * per_unit),
    )
