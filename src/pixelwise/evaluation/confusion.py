"""One confusion matrix for a whole split, and the four scores of the FCN paper from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE


@dataclass(frozen=True)
class Scores:
    """The metrics of FCN (arXiv:1411.4038, section 5), as fractions 0..1.

    iou and accuracy: by class, NaN where they are undefined: a class that is neither in the truth
    nor predicted has no IoU, one that is not in the truth has no accuracy. Means leave NaN out.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iou: float
    frequency_weighted_iou: float
    iou: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    share: NDArray[np.float64]
    pixels: int

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Plain JSON; NaN becomes null."""
        return {
            "pixel_accuracy": _plain(self.pixel_accuracy),
            "mean_accuracy": _plain(self.mean_accuracy),
            "mean_iou": _plain(self.mean_iou),
            "frequency_weighted_iou": _plain(self.frequency_weighted_iou),
            "pixels": self.pixels,
            "classes": {
                name: {
                    "iou": _plain(self.iou[i]),
                    "accuracy": _plain(self.accuracy[i]),
                    "share": _plain(self.share[i]),
                }
                for i, name in enumerate(names)
            },
        }


class ConfusionMatrix:
    """Counts of pixels by true class (rows) and predicted class (columns)."""

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> None:
        """Add an image: class indices of equal shape; truth may hold IGNORE, which is left out.

        Raises ValueError for different shapes or an index that is no class.
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"truth is {truth.shape}, prediction {predicted.shape}")
        classes = len(self.counts)
        seen = truth != IGNORE
        rows, columns = truth[seen], predicted[seen]
        if rows.size and max(int(rows.max()), int(columns.max())) >= classes:
            raise ValueError(f"class index over {classes - 1}")
        cells = rows.astype(np.int32) * classes + columns
        self.counts += np.bincount(cells, minlength=classes**2).reshape(classes, classes)

    def scores(self) -> Scores:
        counts = self.counts.astype(np.float64)
        right, truth, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
        total = truth.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            iou = right / (truth + predicted - right)
            accuracy = right / truth
            share = truth / total
            weighted = share * np.where(truth > 0, iou, 0)
            return Scores(
                pixel_accuracy=float(right.sum() / total),
                mean_accuracy=_mean(accuracy),
                mean_iou=_mean(iou),
                frequency_weighted_iou=float(weighted.sum()) if total else float("nan"),
                iou=iou,
                accuracy=accuracy,
                share=share,
                pixels=int(total),
            )


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
