"""Whether two scores on the same images differ by more than the choice of images explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.evaluation.bootstrap import drawn_sums, interval
from pixelwise.evaluation.confusion import plain, ratios
from pixelwise.evaluation.image_counts import Tallies

FEWEST = 6
"""Images below which no difference is shown: that all of five favour one of two equal networks has
a chance of 2 / 2**5, over 5 %, and draws of them all say so."""


@dataclass(frozen=True)
class Difference:
    """Second minus first, of IoU, 0..1, with its interval over draws of images.

    mean: of the mean IoU; mean_interval: (2,). by_class: (C,), NaN where one of both has no IoU;
    class_intervals: (2, C). images: how many there are.
    """

    mean: float
    mean_interval: NDArray[np.float64]
    by_class: NDArray[np.float64]
    class_intervals: NDArray[np.float64]
    images: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval of the mean leaves 0 out; never of fewer images than FEWEST."""
        low, high = self.mean_interval
        return self.images >= FEWEST and bool(low > 0 or high < 0)

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {
            "mean_iou": plain(self.mean),
            "interval": [plain(bound) for bound in self.mean_interval],
            "is_shown": self.is_shown,
            "images": self.images,
            "classes": {
                name: {
                    "iou": plain(self.by_class[i]),
                    "interval": [plain(bound) for bound in self.class_intervals[:, i]],
                }
                for i, name in enumerate(names)
            },
        }


def paired_difference(first: Tallies, second: Tallies) -> Difference:
    """By the paired bootstrap: both are scored on the same draws of images.

    Raises ValueError where they are not of the same images and the same truth.
    """
    if set(first.names) != set(second.names):
        raise ValueError(f"of different images, as {min({*first.names} ^ {*second.names})}")
    place = {name: i for i, name in enumerate(second.names)}
    counts = np.stack([first.counts, second.counts[[place[name] for name in first.names]]], axis=1)
    others = (counts[:, 0, 1] != counts[:, 1, 1]).any(axis=1)
    if others.any():
        raise ValueError(f"with different masks of {first.names[int(others.argmax())]}")
    whole, drawn = ratios(counts.sum(axis=0)), ratios(drawn_sums(counts))
    return Difference(
        mean=float(np.diff(whole["mean_iou"])[0]),
        mean_interval=interval(np.diff(drawn["mean_iou"], axis=1)[:, 0]),
        by_class=np.diff(whole["iou"], axis=0)[0],
        class_intervals=interval(np.diff(drawn["iou"], axis=1)[:, 0]),
        images=len(counts),
    )
