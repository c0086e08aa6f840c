"""Whether a network is right as often as it is sure: reliability, and its error in one number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.evaluation.confusion import plain

BINS = 15
SURE = 0.9
"""A confidence from which a wrong pixel misleads."""


class Calibration:
    """Pixels by confidence, the largest probability, in BINS equal parts of 0..1.

    pixels, right: (BINS,) counts. confidence: (BINS,) sums. A bin holds its upper end.
    """

    def __init__(self) -> None:
        self.pixels = np.zeros(BINS, dtype=np.int64)
        self.right = np.zeros(BINS, dtype=np.int64)
        self.confidence = np.zeros(BINS, dtype=np.float64)

    def update(
        self,
        truth: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        confidence: NDArray[np.float32],
    ) -> None:
        """Add an image: class indices and confidence 0..1, (H, W) each; IGNORE is left out."""
        seen = truth != IGNORE
        sure = confidence[seen].astype(np.float64)
        place = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self.pixels += np.bincount(place, minlength=BINS)
        self.right += np.bincount(place[predicted[seen] == truth[seen]], minlength=BINS)
        self.confidence += np.bincount(place, weights=sure, minlength=BINS)

    @property
    def error(self) -> float:
        """The expected calibration error (arXiv:1706.04599, section 2), 0..1; NaN without pixels:
        the mean over pixels of the distance between a bin's confidence and its accuracy."""
        total = self.pixels.sum()
        return float(np.abs(self.right - self.confidence).sum() / total) if total else float("nan")

    def to_json(self) -> dict[str, Any]:
        """The error, and a row a bin; means are null in an empty one."""
        rows = []
        for i, (pixels, right, confidence) in enumerate(
            zip(self.pixels.tolist(), self.right.tolist(), self.confidence.tolist(), strict=True)
        ):
            rows.append(
                {
                    "from": i / BINS,
                    "to": (i + 1) / BINS,
                    "pixels": pixels,
                    "accuracy": right / pixels if pixels else None,
                    "confidence": confidence / pixels if pixels else None,
                }
            )
        return {"expected_calibration_error": plain(self.error), "reliability": rows}


def sure_and_wrong(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], confidence: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """(H, W): the wrong pixels whose confidence is SURE or more."""
    wrong = (predicted != truth) & (truth != IGNORE) & (confidence >= SURE)
    return np.asarray(wrong, dtype=bool)
