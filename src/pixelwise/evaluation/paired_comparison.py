"""Test whether two networks differ on the same images by more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.evaluation.bootstrap import interval, resampled_sums
from pixelwise.evaluation.confusion import ratios, to_plain
from pixelwise.evaluation.image_counts import ImageCounts

MIN_IMAGES = 6
"""Fewest images that can show a difference. All of 5 images favor the same one of two equal
networks with a probability of 2 / 2**5, over 5 %, and then so does every resample."""


@dataclass(frozen=True)
class Difference:
    """IoU (0..1) of a second network minus that of a first one, with bootstrap intervals.

    Attributes:
        mean: Difference of the mean IoU.
        mean_interval: (2,) its interval.
        by_class: (C,) differences by class. NaN if a class has no IoU in one of the two.
        class_intervals: (2, C) their intervals.
        images: Number of images.
    """

    mean: float
    mean_interval: NDArray[np.float64]
    by_class: NDArray[np.float64]
    class_intervals: NDArray[np.float64]
    images: int

    @property
    def is_significant(self) -> bool:
        """Whether there are MIN_IMAGES images and the interval of the mean excludes 0."""
        low, high = self.mean_interval
        return self.images >= MIN_IMAGES and bool(low > 0 or high < 0)

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return plain JSON. NaN becomes null."""
        return {
            "mean_iou": to_plain(self.mean),
            "interval": [to_plain(bound) for bound in self.mean_interval],
            "is_significant": self.is_significant,
            "images": self.images,
            "classes": {
                name: {
                    "iou": to_plain(self.by_class[i]),
                    "interval": [to_plain(bound) for bound in self.class_intervals[:, i]],
                }
                for i, name in enumerate(names)
            },
        }


def paired_difference(first: ImageCounts, second: ImageCounts) -> Difference:
    """Compare two networks by the paired bootstrap: both are scored on the same resamples.

    Raises:
        ValueError: If the images or their masks differ.
    """
    if set(first.names) != set(second.names):
        raise ValueError(f"the images differ, for example {min({*first.names} ^ {*second.names})}")
    index = {name: i for i, name in enumerate(second.names)}
    counts = np.stack([first.counts, second.counts[[index[name] for name in first.names]]], axis=1)
    other_masks = (counts[:, 0, 1] != counts[:, 1, 1]).any(axis=1)
    if other_masks.any():
        name = first.names[int(other_masks.argmax())]
        raise ValueError(f"the masks differ, for example that of {name}")
    total, resampled = ratios(counts.sum(axis=0)), ratios(resampled_sums(counts))
    return Difference(
        mean=float(np.diff(total["mean_iou"])[0]),
        mean_interval=interval(np.diff(resampled["mean_iou"], axis=1)[:, 0]),
        by_class=np.diff(total["iou"], axis=0)[0],
        class_intervals=interval(np.diff(resampled["iou"], axis=1)[:, 0]),
        images=len(counts),
    )
