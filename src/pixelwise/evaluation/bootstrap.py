"""How far scores depend on which images happen to be in a split: the percentile bootstrap.

Images are drawn anew, with replacement, as many as there are, and scored each time (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Images count as independent: frames
of one video are not, and their intervals are too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.evaluation.confusion import BY_CLASS, SUMMARY, plain, ratios

DRAWS = 1000
LEVEL = 0.95
SEED = 0
CHUNK = 50
"""Draws at a time: bounds the memory of large splits."""


def drawn_sums(
    counts: NDArray[Any], *, draws: int = DRAWS, seed: int = SEED
) -> NDArray[np.float64]:
    """The counts (N, ...) of the images in each draw, added up: (draws, ...); exact below 2**53.

    For equal N the same images are drawn, so that what is counted side by side stays paired.
    """
    images = len(counts)
    rng = np.random.default_rng(seed)
    flat = counts.reshape(images, -1).astype(np.float64)
    parts = []
    for first in range(0, draws, CHUNK):
        size = min(CHUNK, draws - first)
        times = rng.multinomial(images, np.full(images, 1 / images), size=size)
        parts.append(times.astype(np.float64) @ flat)
    return np.concatenate(parts).reshape(draws, *counts.shape[1:])


def interval(values: NDArray[np.float64], *, level: float = LEVEL) -> NDArray[np.float64]:
    """(draws, ...) to (2, ...): between these lies the part `level` of what was drawn.

    NaN where no draw has a value; draws without one are left out.
    """
    tail = 100 * (1 - level) / 2
    out = np.full((2, *values.shape[1:]), np.nan)
    known = ~np.isnan(values).all(axis=0)
    out[:, known] = np.nanpercentile(values[:, known], [tail, 100 - tail], axis=0)
    return out


@dataclass(frozen=True)
class Intervals:
    """(low, high) of each score of `ratios`, over draws of images: (2,), by class (2, C)."""

    values: dict[str, NDArray[np.float64]]
    images: int

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Plain JSON: a pair or null for each score."""
        by_class = [key for key in BY_CLASS if key != "share"]
        return {
            "level": LEVEL,
            "draws": DRAWS,
            "images": self.images,
            **{key: _pair(self.values[key]) for key in SUMMARY},
            "classes": {
                name: {key: _pair(self.values[key][:, i]) for key in by_class}
                for i, name in enumerate(names)
            },
        }


def score_intervals(counts: NDArray[np.int64]) -> Intervals:
    """From the tallies (N, 3, C) of a split's images, N at least 1."""
    drawn = ratios(drawn_sums(counts))
    return Intervals({key: interval(values) for key, values in drawn.items()}, len(counts))


def _pair(bounds: NDArray[np.float64]) -> list[float | None] | None:
    low, high = (plain(value) for value in bounds)
    return None if low is None else [low, high]
