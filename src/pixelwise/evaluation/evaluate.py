"""Score a predictor on a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.source import Sample
from pixelwise.evaluation.bootstrap import Intervals, score_intervals
from pixelwise.evaluation.boundary import (
    BoundaryScores,
    BoundaryTally,
    boundary_scores,
    boundary_tally,
)
from pixelwise.evaluation.calibration import Calibration, sure_and_wrong
from pixelwise.evaluation.confusion import ConfusionMatrix, Scores
from pixelwise.evaluation.tallies import Tallies
from pixelwise.inference import Predictor


@dataclass(frozen=True)
class Details:
    """What takes longer than counting, and is not needed after each epoch.

    sure_and_wrong: by image, the pixels that are wrong with a confidence of 0.9 or more.
    """

    boundary: BoundaryScores
    calibration: Calibration
    sure_and_wrong: dict[str, int]


@dataclass(frozen=True)
class Evaluation:
    """The confusion matrix of a split, what each image adds to it, and the details if wanted."""

    matrix: ConfusionMatrix
    tallies: Tallies
    details: Details | None = None

    @cached_property
    def scores(self) -> Scores:
        return self.matrix.scores()

    @cached_property
    def intervals(self) -> Intervals:
        return score_intervals(self.tallies.counts)

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Plain JSON: the scores, their intervals, and the details where there are any."""
        scores = self.scores.to_json(names)
        scores["intervals"] = self.intervals.to_json(names)
        if self.details is not None:
            boundary = self.details.boundary.to_json(names)
            for name, row in boundary.pop("classes").items():
                scores["classes"][name] |= row
            scores |= boundary | self.details.calibration.to_json()
        return scores


def evaluate(
    predictor: Predictor,
    data: SegmentationData,
    split: str,
    *,
    details: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict each image of `split` at its own size and count it into one matrix.

    details: also score borders and confidence. progress: called with (done, total) after each
    image.
    """
    matrix = ConfusionMatrix(len(data.classes))
    tallies = []
    detailed = _Details(len(data.classes)) if details else None
    samples: list[Sample] = data.splits[split]
    for done, sample in enumerate(samples, start=1):
        image, truth = data.read(sample)
        own = ConfusionMatrix(len(data.classes))
        if detailed is None:
            own.update(truth, predictor.classify(image))
        else:
            result = predictor.predict_prepared(image)
            own.update(truth, result.index)
            detailed.update(sample.name, truth, result.index, result.probabilities.max(axis=0))
        matrix.counts += own.counts
        tallies.append(own.tally())
        if progress is not None:
            progress(done, len(samples))
    names = tuple(sample.name for sample in samples)
    return Evaluation(
        matrix, Tallies(names, np.stack(tallies)), None if detailed is None else detailed.result()
    )


class _Details:
    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.boundary: list[BoundaryTally] = []
        self.calibration = Calibration()
        self.wrong: dict[str, int] = {}

    def update(
        self,
        name: str,
        truth: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        confidence: NDArray[np.float32],
    ) -> None:
        self.boundary.append(boundary_tally(truth, predicted, classes=self.classes))
        self.calibration.update(truth, predicted, confidence)
        self.wrong[name] = int(sure_and_wrong(truth, predicted, confidence).sum())

    def result(self) -> Details:
        return Details(boundary_scores(self.boundary), self.calibration, self.wrong)
