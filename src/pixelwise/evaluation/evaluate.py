"""Score a predictor on a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
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
from pixelwise.evaluation.image_counts import Tallies
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
    part: tuple[int, int] = (0, 1),
) -> Evaluation:
    """Predict each image of `split` at its own size and count it into one matrix.

    details: also score borders and confidence. progress: called with (done, total) after each
    image.
    part: (k, n): of n parts the one with the images k, k + n, k + 2n, ...; `joined` makes the whole
    of them. `progress` is then called as often for each part, with the numbers of the whole.
    """
    counted = _Counted(len(data.classes), details=details)
    samples: list[Sample] = data.splits[split]
    first, parts = part
    for done in range(0, len(samples), parts):
        if done + first < len(samples):
            counted.add(predictor, data, samples[done + first])
        if progress is not None:
            progress(min(done + parts, len(samples)), len(samples))
    return counted.result()


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """The whole split from its parts (0, n) to (n - 1, n), without details: exact, for what is
    added up are whole numbers."""
    matrix = ConfusionMatrix(len(parts[0].matrix.counts))
    for part in parts:
        matrix.counts += part.matrix.counts
    rows = [zip(part.tallies.names, part.tallies.counts, strict=True) for part in parts]
    in_order = [row for together in zip_longest(*rows) for row in together if row is not None]
    names, counts = zip(*in_order, strict=True)
    return Evaluation(matrix, Tallies(names, np.stack(counts)))


class _Counted:
    """What is known of the images so far."""

    def __init__(self, classes: int, *, details: bool) -> None:
        self.matrix = ConfusionMatrix(classes)
        self.names: list[str] = []
        self.tallies: list[NDArray[np.int64]] = []
        self.details = _Details(classes) if details else None

    def add(self, predictor: Predictor, data: SegmentationData, sample: Sample) -> None:
        image, truth = data.read(sample)
        own = ConfusionMatrix(len(self.matrix.counts))
        if self.details is None:
            own.update(truth, predictor.classify(image))
        else:
            result = predictor.predict_prepared(image)
            own.update(truth, result.index)
            confidence = result.probabilities.max(axis=0)
            self.details.update(sample.name, truth, result.index, confidence)
        self.matrix.counts += own.counts
        self.names.append(sample.name)
        self.tallies.append(own.tally())

    def result(self) -> Evaluation:
        counts = np.array(self.tallies, dtype=np.int64).reshape(-1, 3, len(self.matrix.counts))
        details = None if self.details is None else self.details.result()
        return Evaluation(self.matrix, Tallies(tuple(self.names), counts), details)


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
