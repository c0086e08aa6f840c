"""Score a predictor on a split of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.pixel_format import Pixels
from pixelwise.data.source import Sample
from pixelwise.errors import InputError
from pixelwise.evaluation.bootstrap import Intervals, score_intervals
from pixelwise.evaluation.boundary import (
    BoundaryCounts,
    BoundaryScores,
    boundary_scores,
    count_boundary,
)
from pixelwise.evaluation.calibration import Calibration, confident_errors
from pixelwise.evaluation.confusion import ConfusionMatrix, Scores
from pixelwise.evaluation.image_counts import ImageCounts
from pixelwise.evaluation.paired_comparison import Difference, paired_difference
from pixelwise.inference import Predictor

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Details:
    """Scores that take longer to compute and are not needed after each epoch.

    Attributes:
        boundary: Boundary F1 and boundary IoU.
        calibration: Accuracy by confidence.
        confident_errors: By image, the number of wrong pixels with a confidence of 0.9 or more.
    """

    boundary: BoundaryScores
    calibration: Calibration
    confident_errors: dict[str, int]


@dataclass(frozen=True)
class Evaluation:
    """How well a network predicts a split.

    Attributes:
        matrix: Confusion matrix of all pixels.
        image_counts: Pixel counts of each image.
        details: Boundary and calibration scores, if they were requested.
        members: Of an ensemble, the evaluation of each network by its path.
    """

    matrix: ConfusionMatrix
    image_counts: ImageCounts
    details: Details | None = None
    members: Mapping[str, Evaluation] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Evaluation({len(self.image_counts.names)} images, {self.scores})"

    @cached_property
    def scores(self) -> Scores:
        """IoU, accuracy, precision and Dice."""
        return self.matrix.scores()

    @cached_property
    def intervals(self) -> Intervals:
        """Bootstrap confidence intervals of the scores."""
        return score_intervals(self.image_counts.counts)

    @property
    def best_member(self) -> str | None:
        """The member with the highest mean IoU; None without members."""
        return max(self.members, key=lambda path: self.members[path].scores.mean_iou, default=None)

    @cached_property
    def gain(self) -> Difference | None:
        """What the ensemble gains over its best member on the same images; None without members."""
        best = self.best_member
        if best is None:
            return None
        return paired_difference(self.members[best].image_counts, self.image_counts)

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return plain JSON: the scores, their intervals, and the details if there are any."""
        scores = self.scores.to_json(names)
        scores["intervals"] = self.intervals.to_json(names)
        if self.details is not None:
            boundary = self.details.boundary.to_json(names)
            for name, row in boundary.pop("classes").items():
                scores["classes"][name] |= row
            scores |= boundary | self.details.calibration.to_json()
        if self.gain is not None:
            each = {path: member.to_json(names) for path, member in self.members.items()}
            gain = self.gain.to_json(names) | {"over": self.best_member}
            scores |= {"members": each, "gain": gain}
        return scores


def evaluate(
    predictor: Predictor,
    data: SegmentationData,
    split: str = "val",
    *,
    details: bool = False,
    progress: ProgressCallback | None = None,
    on_image: Callable[[str, Pixels, Labels, Labels], None] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Evaluation:
    """Predict each image of a split at its own size and score it against its mask.

    Args:
        predictor: The network.
        data: A dataset with the network's classes.
        split: Name of the split.
        details: Whether to score boundaries and calibration as well.
        progress: Called with (done, total) after each image.
        on_image: Called after each image with its name, the image (H, W, N), and its true and
            predicted classes (H, W).
        shard: (k, n) evaluates the images k, k + n, k + 2n, ... only. `merge_shards` combines the
            results. `progress` is called equally often in each shard, with numbers of the split.

    Returns:
        The evaluation.

    Raises:
        InputError: If no pixel of the split belongs to a class.
    """
    if not data.pixel_counts[split].any():
        raise InputError(
            f"{data.root}: no pixel of the {len(data.splits[split])} masks of {split} belongs to a "
            "class, so there is nothing to score: label some of its images"
        )
    matrix = ConfusionMatrix(len(data.classes))
    names: list[str] = []
    counts: list[NDArray[np.int64]] = []
    boundary: list[BoundaryCounts] = []
    calibration = Calibration()
    errors: dict[str, int] = {}
    samples: list[Sample] = data.splits[split]
    first, step = shard
    for done in range(0, len(samples), step):
        for sample in samples[done + first : done + first + 1]:  # the last slice may be empty
            image, truth = data.read(sample)
            own = ConfusionMatrix(len(data.classes))
            if details:
                result = predictor.predict_prepared(image)
                predicted, confidence = result.labels, result.probabilities.max(axis=0)
                boundary.append(count_boundary(truth, predicted, classes=len(data.classes)))
                calibration.update(truth, predicted, confidence)
                errors[sample.name] = int(confident_errors(truth, predicted, confidence).sum())
            else:
                predicted = predictor.predict_labels(image)
            own.update(truth, predicted)
            if on_image is not None:
                on_image(sample.name, image, truth, predicted)
            matrix.counts += own.counts
            names.append(sample.name)
            counts.append(own.class_counts())
        if progress is not None:
            progress(min(done + step, len(samples)), len(samples))
    by_image = np.array(counts, dtype=np.int64).reshape(-1, 3, len(data.classes))
    image_counts = ImageCounts(tuple(names), by_image)
    scored = Details(boundary_scores(boundary), calibration, errors) if details else None
    return Evaluation(matrix, image_counts, scored)


def merge_shards(shards: Sequence[Evaluation]) -> Evaluation:
    """Combine the evaluations of the shards (0, n) to (n - 1, n), without details.

    The result is exact because it adds integers.
    """
    matrix = ConfusionMatrix(len(shards[0].matrix.counts))
    for shard in shards:
        matrix.counts += shard.matrix.counts
    rows = [zip(s.image_counts.names, s.image_counts.counts, strict=True) for s in shards]
    in_order = [row for together in zip_longest(*rows) for row in together if row is not None]
    names, counts = zip(*in_order, strict=True)
    return Evaluation(matrix, ImageCounts(names, np.stack(counts)))
