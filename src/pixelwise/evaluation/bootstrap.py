"""Confidence intervals of scores by the percentile bootstrap over images.

Each resample draws as many images as the split has, with replacement, and is scored like the split
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Images count as
independent. The frames of a video are not, so their intervals are too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.evaluation.confusion import BY_CLASS, SUMMARY, ratios, to_plain

RESAMPLES = 1000
LEVEL = 0.95
SEED = 0
CHUNK = 50
"""Resamples that are computed together. Bounds the memory that large splits need."""


def resampled_sums(
    counts: NDArray[Any], *, resamples: int = RESAMPLES, seed: int = SEED
) -> NDArray[np.float64]:
    """Sum the counts of the images of each bootstrap resample.

    Equal N and seed give the same resamples, so counts of several networks stay paired.

    Args:
        counts: (N, ...) counts of each image.
        resamples: Number of resamples.
        seed: Random seed.

    Returns:
        (resamples, ...) sums, exact below 2**53.
    """
    images = len(counts)
    rng = np.random.default_rng(seed)
    flat = counts.reshape(images, -1).astype(np.float64)
    chunks = []
    for first in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - first)
        times = rng.multinomial(images, np.full(images, 1 / images), size=size)
        chunks.append(times.astype(np.float64) @ flat)
    return np.concatenate(chunks).reshape(resamples, *counts.shape[1:])


def interval(values: NDArray[np.float64], *, level: float = LEVEL) -> NDArray[np.float64]:
    """Return the (2, ...) bounds of the central fraction `level` of (resamples, ...) values.

    NaN values are left out. Where all are NaN, the bounds are NaN.
    """
    tail = 100 * (1 - level) / 2
    out = np.full((2, *values.shape[1:]), np.nan)
    known = ~np.isnan(values).all(axis=0)
    out[:, known] = np.nanpercentile(values[:, known], [tail, 100 - tail], axis=0)
    return out


@dataclass(frozen=True)
class Intervals:
    """Bootstrap confidence intervals of all scores.

    Attributes:
        values: (low, high) of each score of `ratios`: (2,), or (2, C) for scores by class.
        images: Number of images.
    """

    values: dict[str, NDArray[np.float64]]
    images: int

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return plain JSON: [low, high] or null for each score."""
        by_class = [key for key in BY_CLASS if key != "share"]
        return {
            "level": LEVEL,
            "resamples": RESAMPLES,
            "images": self.images,
            **{key: _pair(self.values[key]) for key in SUMMARY},
            "classes": {
                name: {key: _pair(self.values[key][:, i]) for key in by_class}
                for i, name in enumerate(names)
            },
        }


def score_intervals(counts: NDArray[np.int64]) -> Intervals:
    """Compute the intervals from the (N, 3, C) class counts of one or more images."""
    resampled = ratios(resampled_sums(counts))
    return Intervals({key: interval(values) for key, values in resampled.items()}, len(counts))


def _pair(bounds: NDArray[np.float64]) -> list[float | None] | None:
    low, high = (to_plain(value) for value in bounds)
    return None if low is None else [low, high]
