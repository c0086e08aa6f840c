"""Score a predictor on a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.source import Sample
from pixelwise.evaluation.confusion import ConfusionMatrix, Scores
from pixelwise.inference import Predictor


@dataclass(frozen=True)
class Evaluation:
    """The confusion matrix of a split, and each image's own mean IoU (NaN for an all-void mask)."""

    matrix: ConfusionMatrix
    by_image: dict[str, float]

    @cached_property
    def scores(self) -> Scores:
        return self.matrix.scores()


def evaluate(
    predictor: Predictor,
    data: SegmentationData,
    split: str,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict each image of `split` at its own size and count it into one matrix.

    progress: called with (done, total) after each image.
    """
    matrix = ConfusionMatrix(len(data.classes))
    by_image: dict[str, float] = {}
    samples: list[Sample] = data.splits[split]
    for done, sample in enumerate(samples, start=1):
        image, truth = data.read(sample)
        own = ConfusionMatrix(len(data.classes))
        own.update(truth, predictor.classify(image))
        matrix.counts += own.counts
        by_image[sample.name] = own.scores().mean_iou
        if progress is not None:
            progress(done, len(samples))
    return Evaluation(matrix, by_image)
