"""Cross-validation: every image is scored by a network that has seen no image of its group."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.groups import find_groups
from pixelwise.evaluation import evaluate
from pixelwise.evaluation.bootstrap import Intervals, score_intervals
from pixelwise.evaluation.confusion import ConfusionMatrix, Scores
from pixelwise.recipes.schema import Recipe
from pixelwise.study.folds import FoldsCallback, folds_folder, open_unseen, train_folds


@dataclass(frozen=True)
class FoldScores:
    """The scores of one fold.

    Attributes:
        images: Number of its images.
        groups: Number of its groups; of its images, if there are no groups.
        scores: The scores of its images.
    """

    images: int
    groups: int
    scores: Scores


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold scores of a dataset.

    Attributes:
        classes: Names of the classes.
        folds: The scores of each fold.
        matrix: Confusion matrix of all pixels, each predicted by the network of its fold.
        group_counts: (G, 3, C) class counts of each group; of each image, if there are no groups.
        grouped: Whether images were kept together in groups.
    """

    classes: tuple[str, ...]
    folds: list[FoldScores]
    matrix: ConfusionMatrix
    group_counts: NDArray[np.int64]
    grouped: bool

    @cached_property
    def scores(self) -> Scores:
        """The scores over all images."""
        return self.matrix.scores()

    @cached_property
    def intervals(self) -> Intervals:
        """Bootstrap confidence intervals of the scores: groups are drawn, or images."""
        return score_intervals(self.group_counts)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: the scores as of `evaluate`, and a row for each fold."""
        intervals = self.intervals.to_json(self.classes)
        intervals["over"] = "groups" if self.grouped else "images"
        intervals[intervals["over"]] = intervals.pop("images")
        return {
            **self.scores.to_json(self.classes),
            "intervals": intervals,
            "folds": [
                {
                    "fold": number,
                    "images": fold.images,
                    "groups": fold.groups,
                    "mean_iou": fold.scores.to_json(self.classes)["mean_iou"],
                    "pixel_accuracy": fold.scores.to_json(self.classes)["pixel_accuracy"],
                }
                for number, fold in enumerate(self.folds, 1)
            ],
        }


def cross_validate(
    root: Path, out: Path, recipe: Recipe, *, folds: int = 5, callback: FoldsCallback | None = None
) -> CrossValidation:
    """Train a network for each fold, and score the images that it has not seen.

    A study that was stopped or killed continues, with the same result. The test split stays apart.
    For arguments and errors see `pixelwise.cross_validate`; the recipe has `data.group_by`.
    """
    callback = callback or FoldsCallback()
    fold_scores: list[FoldScores] = []
    matrices: list[NDArray[np.int64]] = []
    counts: dict[str, NDArray[np.int64]] = {}
    with folds_folder(out, "cross-validate"):
        bundles = train_folds(root, out, recipe, folds, callback=callback)
        for number, bundle in enumerate(bundles, 1):
            callback.on_fold_predicting(number, folds)
            predictor, data = open_unseen(bundle, root, progress=callback.on_dataset_progress)
            result = evaluate(predictor, data, progress=callback.on_validation_progress)
            samples, rule = data.splits["val"], recipe.data.group_by
            names = [sample.name for sample in samples]
            found = find_groups(root, samples, rule)
            groups = names if found is None else found
            for group, image_counts in zip(groups, result.image_counts.counts, strict=True):
                counts[group] = counts.get(group, 0) + image_counts
            fold_scores.append(FoldScores(len(samples), len(set(groups)), result.scores))
            matrices.append(result.matrix.counts)
    matrix = ConfusionMatrix(len(data.classes))
    matrix.counts += sum(matrices)
    return CrossValidation(
        data.classes.names,
        fold_scores,
        matrix,
        np.stack(list(counts.values())),
        found is not None,
    )
