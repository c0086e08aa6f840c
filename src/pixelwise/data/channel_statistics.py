"""The pixel format of a whole set, from what each of its images tells, and its statistics."""

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
"""Pixels of each deep image by which the range of values is found, evenly over it."""
OUTER = 0.001
"""Share of values that may lie beyond the range at each end: a hot pixel shall not darken all."""
OPAQUE = 0.9
"""Share of pixels that are fully transparent or opaque from which a channel is opacity indeed."""


@dataclass(frozen=True)
class RawFacts:
    """What is kept of a decoded image when its pixels are not.

    raw: the image with one pixel only, for its type and its channels.
    opaque: whether a last channel that is called opacity looks like it.
    sample: (N,) stored values of the first three channels; empty for 8 bits.
    pixels: their number. sums, squares: (C,) of all values by channel, float64.
    """

    raw: RawImage
    opaque: bool
    sample: NDArray[np.float32]
    pixels: int
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]


def facts_of(raw: RawImage) -> RawFacts:
    pixels = raw.pixels
    height, width, stored = pixels.shape
    opaque = True
    if raw.alpha:
        last = pixels[..., -1]
        top = np.iinfo(last.dtype).max if last.dtype.kind == "u" else last.max()
        opaque = bool(np.count_nonzero((last == 0) | (last == top)) >= OPAQUE * last.size)
    sample = np.empty(0, dtype=np.float32)
    if raw.dtype != "uint8":
        step = max(1, int(np.sqrt(height * width / SAMPLED)))
        sample = pixels[::step, ::step, :3].astype(np.float32).reshape(-1)
    if raw.dtype == "uint8":
        counts, levels = _histogram(pixels), np.arange(256.0)
        sums, squares = counts @ levels, counts @ levels**2
    else:
        sums, squares = np.zeros(stored), np.zeros(stored)
        for channel in range(stored):
            wide = pixels[..., channel].astype(np.float64)
            sums[channel], squares[channel] = wide.sum(), np.square(wide).sum()
    one = replace(raw, pixels=pixels[:1, :1].copy())
    return RawFacts(one, opaque, sample, height * width, sums, squares)


def _histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(C, 256) pixels of each value, of bytes (H, W, C)."""
    if pixels.shape[2] == 3:
        counted = Image.fromarray(pixels).histogram()
    else:
        channels = (np.ascontiguousarray(pixels[..., c]) for c in range(pixels.shape[2]))
        counted = [count for c in channels for count in Image.fromarray(c).histogram()]
    return np.array(counted, dtype=np.float64).reshape(-1, 256)


@dataclass(frozen=True)
class ChannelStatistics:
    """mean, std: (C,) of all pixels, in units of 0..255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def rescaled(self, before: PixelFormat, now: PixelFormat) -> ChannelStatistics:
        """The same with another range of values."""
        (low, high), (new_low, new_high) = before.value_range, now.value_range
        factor = (high - low) / (new_high - new_low)
        shift = 255 * (low - new_low) / (new_high - new_low)
        return ChannelStatistics(
            tuple(mean * factor + shift for mean in self.mean),
            tuple(std * factor for std in self.std),
        )


def choose_format(
    found: Sequence[RawFacts],
    *,
    channels: int | None = None,
    value_range: tuple[float, float] | None = None,
    range_from: Iterable[RawFacts] | None = None,
) -> tuple[PixelFormat, list[str]]:
    """The format that most of some images have, and what was decided, in sentences.

    channels, value_range: where they are stated. range_from: the images to train on, by which the
    range of deep images is found; None: all.
    """
    doubted = [facts for facts in found if facts.raw.doubtful]
    as_data = sum(not facts.opaque for facts in doubted) * 2 > len(doubted)
    notes: list[str] = []
    votes: Counter[tuple[int, str]] = Counter()
    for facts in found:
        raw = facts.raw
        own = raw.pixels.shape[2] if raw.doubtful and as_data else raw.channels
        votes[own, raw.dtype] += 1
    if not votes:
        return PixelFormat(channels or 3), notes
    (most, dtype), _ = votes.most_common(1)[0]
    if as_data and channels is None and most == doubted[0].raw.pixels.shape[2]:
        notes.append(
            f"the last of {most} channels, called opacity in the files, holds more than opaque and "
            f"transparent: taken as a channel (--set data.channels={most - 1} leaves it out)"
        )
    if value_range is None:
        chosen = [f for f in range_from or found if f.raw.dtype == dtype] or found
        value_range, why = _find_range(dtype, np.concatenate([f.sample for f in chosen]))
        if why:
            notes.append(f"{why} (--set data.value_range for another)")
    picked = PixelFormat(channels or most, dtype, value_range)
    return picked, notes


def _find_range(dtype: str, sample: NDArray[np.float32]) -> tuple[tuple[float, float], str]:
    """The values to become 0 and 255, and why, in words where there is a choice."""
    if dtype == "uint8":
        return (0.0, 255.0), ""
    low, high = (float(value) for value in np.quantile(sample, (OUTER, 1 - OUTER)))
    if dtype == "uint16":
        bits = max(8, int(np.ceil(high)).bit_length())
        top = float(2**bits - 1)
        return (0.0, top), f"16-bit images that use {bits} bits: 0 to {top:g} become 0 to 255"
    if sample.min() >= 0 and sample.max() <= 1 and high > 0:
        return (0.0, 1.0), "floating point images of 0 to 1: they become 0 to 255"
    if sample.min() >= 0 and high > 1 and sample.max() <= 255:
        return (0.0, 255.0), "floating point images of 0 to 255: taken as they are"
    if high <= low:
        high = low + 1
    return (low, high), (
        f"floating point images: {low:g} to {high:g}, between which 99.8 % of the values of "
        "train lie, become 0 to 255"
    )


def measure(found: Iterable[RawFacts], picked: PixelFormat) -> ChannelStatistics:
    """Mean and standard std of each channel over some images of that format."""
    pixels = 0
    sums, squares = np.zeros(picked.channels), np.zeros(picked.channels)
    for facts in found:
        try:
            picked.select(facts.raw, Path())
        except InputError:
            continue  # named elsewhere
        kept = slice(0, picked.channels)
        local_sums, own_squares = facts.sums[kept], facts.squares[kept]
        if len(local_sums) < picked.channels:  # gray, which becomes RGB
            local_sums, own_squares = local_sums[:1], own_squares[:1]
        pixels += facts.pixels
        sums += local_sums
        squares += own_squares
    low, high = picked.value_range
    per_unit = 255 / (high - low)
    means = sums / max(1, pixels)
    variances = np.maximum(0, squares / max(1, pixels) - means**2)
    return ChannelStatistics(
        tuple(float(mean) for mean in (means - low) * per_unit),
        tuple(float(std) for std in np.sqrt(variances) * per_unit),
    )
