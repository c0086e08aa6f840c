"""The confusion matrix of a split, and the metrics that are computed from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE

# Metrics with one number per confusion matrix, and metrics with one number per class.
SUMMARY = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou", "mean_dice")
BY_CLASS = ("iou", "accuracy", "precision", "dice", "share")


@dataclass(frozen=True, repr=False)
class Scores:
    """The metrics of FCN (arXiv:1411.4038, section 5), precision and Dice, as fractions 0..1.

    Attributes:
        iou: (C,) by class. NaN for a class that is neither true nor predicted anywhere.
        dice: (C,) by class, also called F1. NaN as for `iou`.
        accuracy: (C,) fraction of a class's pixels that are found, also called recall. NaN for a
            class that is nowhere true.
        precision: (C,) fraction of the pixels predicted as a class that are correct. NaN for a
            class that is nowhere predicted.
        share: (C,) fraction of the pixels that belong to a class.
        pixel_accuracy: Fraction of all pixels that are correct.
        mean_accuracy: Mean of `accuracy` without NaN, as for all means.
        mean_iou: Mean of `iou`.
        frequency_weighted_iou: Mean of `iou`, weighted by `share`.
        mean_dice: Mean of `dice`.
        pixels: Number of scored pixels.
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

    def __repr__(self) -> str:
        summary = ", ".join(f"{key}={getattr(self, key):.4f}" for key in SUMMARY)
        return f"Scores({summary}, {len(self.iou)} classes, {self.pixels} pixels)"

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return plain JSON. NaN becomes null."""
        return {
            **{key: to_plain(getattr(self, key)) for key in SUMMARY},
            "pixels": self.pixels,
            "classes": {
                name: {key: to_plain(getattr(self, key)[i]) for key in BY_CLASS}
                for i, name in enumerate(names)
            },
        }


class ConfusionMatrix:
    """Counts of pixels by true class (rows) and predicted class (columns).

    Args:
        num_classes: Number of classes C.

    Attributes:
        counts: (C, C) int64.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> None:
        """Add an image.

        Args:
            truth: True classes. IGNORE pixels are left out.
            predicted: Predicted classes, of the same shape.

        Raises:
            ValueError: If the shapes differ or an index is not a class.
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"truth has shape {truth.shape}, prediction {predicted.shape}")
        classes = len(self.counts)
        scored = truth != IGNORE
        rows, columns = truth[scored], predicted[scored]
        if rows.size and max(int(rows.max()), int(columns.max())) >= classes:
            raise ValueError(f"class index over {classes - 1}")
        cells = rows.astype(np.int32) * classes + columns
        self.counts += np.bincount(cells, minlength=classes**2).reshape(classes, classes)

    def class_counts(self) -> NDArray[np.int64]:
        """Return (3, C): of each class the correct, the true and the predicted pixels."""
        return np.stack([self.counts.diagonal(), self.counts.sum(axis=1), self.counts.sum(axis=0)])

    def scores(self) -> Scores:
        """Compute all metrics."""
        values: dict[str, Any] = dict(ratios(self.class_counts()))
        values |= {key: float(values[key]) for key in SUMMARY}
        return Scores(**values, pixels=int(self.counts.sum()))


def ratios(class_counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Compute all metrics from class counts, which may be summed over any images.

    Args:
        class_counts: (..., 3, C) as `ConfusionMatrix.class_counts` returns them.

    Returns:
        The metrics of SUMMARY, (...), and those of BY_CLASS, (..., C), by name.
    """
    correct, truth, predicted = np.moveaxis(np.asarray(class_counts, dtype=np.float64), -2, 0)
    total = truth.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = correct / (truth + predicted - correct)
        accuracy = correct / truth
        share = truth / total[..., None]
        dice = 2 * correct / (truth + predicted)
        weighted = (share * np.where(truth > 0, iou, 0)).sum(axis=-1)
        return {
            "pixel_accuracy": correct.sum(axis=-1) / total,
            "mean_accuracy": nan_mean(accuracy),
            "mean_iou": nan_mean(iou),
            "frequency_weighted_iou": np.where(total > 0, weighted, np.nan),
            "mean_dice": nan_mean(dice),
            "iou": iou,
            "accuracy": accuracy,
            "precision": correct / predicted,
            "dice": dice,
            "share": share,
        }


def nan_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over the last axis without NaN. Return NaN where all values are NaN, silently."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1)
    return mean


def to_plain(value: float) -> float | None:
    """Return a float for JSON, and None for NaN."""
    return None if np.isnan(value) else float(value)
