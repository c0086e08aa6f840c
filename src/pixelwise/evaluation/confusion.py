"""One confusion matrix for a whole split, and the scores that are ratios of its sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE

SUMMARY = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou", "mean_dice")
BY_CLASS = ("iou", "accuracy", "precision", "dice", "share")
"""What `ratios` computes: a number a matrix, and a number a class."""


@dataclass(frozen=True)
class Scores:
    """The metrics of FCN (arXiv:1411.4038, section 5), precision and Dice, as fractions 0..1.

    iou, accuracy, precision, dice: by class, NaN where they are undefined: a class that is neither
    in the truth nor predicted has no IoU and no Dice, one that is not in the truth has no accuracy,
    one that is not predicted no precision. Means leave NaN out. accuracy is also called recall, and
    dice F1.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iou: float
    frequency_weighted_iou: float
    mean_dice: float
    iou: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    precision: NDArray[np.float64]
    dice: NDArray[np.float64]
    share: NDArray[np.float64]
    pixels: int

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Plain JSON; NaN becomes null."""
        return {
            **{key: plain(getattr(self, key)) for key in SUMMARY},
            "pixels": self.pixels,
            "classes": {
                name: {key: plain(getattr(self, key)[i]) for key in BY_CLASS}
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

    def tally(self) -> NDArray[np.int64]:
        """(3, C): of each class the pixels that are right, that are true, that are predicted."""
        return np.stack([self.counts.diagonal(), self.counts.sum(axis=1), self.counts.sum(axis=0)])

    def scores(self) -> Scores:
        values: dict[str, Any] = dict(ratios(self.tally()))
        values |= {key: float(values[key]) for key in SUMMARY}
        return Scores(**values, pixels=int(self.counts.sum()))


def ratios(tally: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """The scores of tallies (..., 3, C) by their names in SUMMARY, (...), and BY_CLASS, (..., C).

    All that they need of a confusion matrix are these sums, so images can be added up or drawn
    anew by theirs.
    """
    right, truth, predicted = np.moveaxis(np.asarray(tally, dtype=np.float64), -2, 0)
    total = truth.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = right / (truth + predicted - right)
        accuracy = right / truth
        share = truth / total[..., None]
        dice = 2 * right / (truth + predicted)
        weighted = (share * np.where(truth > 0, iou, 0)).sum(axis=-1)
        return {
            "pixel_accuracy": right.sum(axis=-1) / total,
            "mean_accuracy": mean_known(accuracy),
            "mean_iou": mean_known(iou),
            "frequency_weighted_iou": np.where(total > 0, weighted, np.nan),
            "mean_dice": mean_known(dice),
            "iou": iou,
            "accuracy": accuracy,
            "precision": right / predicted,
            "dice": dice,
            "share": share,
        }


def mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1)
    return mean


def plain(value: float) -> float | None:
    """For JSON: NaN becomes null."""
    return None if np.isnan(value) else float(value)
