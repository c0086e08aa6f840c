"""Calibration: whether predictions are correct as often as their confidence suggests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.evaluation.confusion import to_plain

BINS = 15
CONFIDENT = 0.9
"""Minimum confidence of a wrong pixel that is misleading."""


class Calibration:
    """Pixel counts by confidence (the largest probability) in BINS equal bins of 0..1.

    A bin includes its upper end.

    Attributes:
        pixels: (BINS,) counts of pixels.
        correct: (BINS,) counts of correct pixels.
        confidence: (BINS,) sums of the confidence.
    """

    def __init__(self) -> None:
        self.pixels = np.zeros(BINS, dtype=np.int64)
        self.correct = np.zeros(BINS, dtype=np.int64)
        self.confidence = np.zeros(BINS, dtype=np.float64)

    def update(
        self,
        truth: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        confidence: NDArray[np.float32],
    ) -> None:
        """Add an image.

        Args:
            truth: (H, W) true classes. IGNORE pixels are left out.
            predicted: (H, W) predicted classes.
            confidence: (H, W) confidence of the predictions, 0..1.
        """
        scored = truth != IGNORE
        values = confidence[scored].astype(np.float64)
        index = np.clip(np.ceil(values * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self.pixels += np.bincount(index, minlength=BINS)
        self.correct += np.bincount(index[predicted[scored] == truth[scored]], minlength=BINS)
        self.confidence += np.bincount(index, weights=values, minlength=BINS)

    @property
    def error(self) -> float:
        """The expected calibration error (arXiv:1706.04599, section 2), 0..1.

        It is the mean over pixels of the distance between a bin's confidence and its accuracy. NaN
        without pixels.
        """
        total = self.pixels.sum()
        if not total:
            return float("nan")
        return float(np.abs(self.correct - self.confidence).sum() / total)

    def to_json(self) -> dict[str, Any]:
        """Return the error and a row for each bin. Means of empty bins are null."""
        columns = (self.pixels.tolist(), self.correct.tolist(), self.confidence.tolist())
        rows = [
            {
                "from": i / BINS,
                "to": (i + 1) / BINS,
                "pixels": pixels,
                "accuracy": correct / pixels if pixels else None,
                "confidence": confidence / pixels if pixels else None,
            }
            for i, (pixels, correct, confidence) in enumerate(zip(*columns, strict=True))
        ]
        return {"expected_calibration_error": to_plain(self.error), "reliability": rows}


def confident_errors(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], confidence: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Return the (H, W) mask of wrong pixels with a confidence of CONFIDENT or more."""
    wrong = (predicted != truth) & (truth != IGNORE) & (confidence >= CONFIDENT)
    return np.asarray(wrong, dtype=bool)
