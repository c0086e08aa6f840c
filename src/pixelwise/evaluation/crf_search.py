"""Search the parameters of a dense CRF on labeled images, coarse to fine (arXiv:1606.00915)."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import CRFParameters, dense_crfs
from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.pixel_format import Pixels, as_shown
from pixelwise.data.source import Sample
from pixelwise.evaluation.confusion import ConfusionMatrix, to_plain
from pixelwise.inference import Predictor
from pixelwise.inference.results import label_map, softmax
from pixelwise.inference.tiling.tiled_model import ProgressCounter
from pixelwise.ops.numba_support import require_numba

# Section 4.1 of the paper: the position kernel is fixed, the other three parameters are searched.
START = CRFParameters(bi_w=4, bi_xy=50, bi_rgb=4, pos_w=3, pos_xy=3)
# For bi_xy the paper's grid has 30 to 100 in steps of 10. On CamVid's 480x360 images, which are
# smaller than PASCAL VOC's, the best values are below it.
COARSE = {"bi_xy": (10, 20, 30, 40, 50, 60, 80, 100), "bi_rgb": range(3, 7), "bi_w": range(3, 7)}
FINE = {"bi_xy": (-5, 0, 5), "bi_rgb": (-0.5, 0, 0.5), "bi_w": (-0.5, 0, 0.5)}
"""Offsets from the best point of the coarse grid."""


@dataclass(frozen=True)
class Trial:
    """CRF parameters and the mean IoU (0..1) that they reach on the images of the search."""

    parameters: CRFParameters
    mean_iou: float


@dataclass(frozen=True)
class CRFGain:
    """Mean IoU (0..1) of some images without and with the CRF. NaN if all pixels are ignored."""

    images: int
    before: float
    after: float

    def to_json(self) -> dict[str, float | None]:
        """Return plain JSON. NaN becomes null."""
        return {
            "images": self.images,
            "before": to_plain(self.before),
            "after": to_plain(self.after),
        }


@dataclass(frozen=True)
class CRFSearch:
    """Result of a parameter search.

    Attributes:
        trials: All parameters that were tried, best first.
        searched: Gain on the images of the search. It is optimistic because the parameters were
            chosen on them.
        rest: Gain on the split's other images, which were held out. None if there are none.
    """

    trials: list[Trial]
    searched: CRFGain
    rest: CRFGain | None

    @property
    def best(self) -> CRFParameters:
        """The parameters with the highest mean IoU."""
        return self.trials[0].parameters

    @property
    def helps(self) -> bool:
        """Whether the CRF raises the mean IoU, on held-out images if there are any."""
        gain = self.rest or self.searched
        return gain.after > gain.before

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON. `predict --crf-set FILE` reads its `parameters`."""
        return {
            "parameters": self.best.to_json(),
            "helps": self.helps,
            "searched": self.searched.to_json(),
            "rest": None if self.rest is None else self.rest.to_json(),
            "trials": [
                {**trial.parameters.to_json(), "mean_iou": to_plain(trial.mean_iou)}
                for trial in self.trials
            ],
        }


def search_crf(
    predictor: Predictor,
    data: SegmentationData,
    split: str,
    *,
    limit: int = 20,
    progress: ProgressCallback | None = None,
) -> CRFSearch:
    """Search a coarse grid of parameters, then a fine grid around its best point.

    The network runs once per image, and its probabilities are stored in temporary files. The
    split's other images then show what the best parameters gain.

    Args:
        predictor: The network, without a CRF.
        data: A dataset with the network's classes.
        split: Name of the split.
        limit: Most images to search on. They are spread evenly over the split.
        progress: Called with (done, total) after each run of the network or the CRF on an image.

    Returns:
        All trials, and the gain on both sets of images.

    Raises:
        InputError: If numba is not installed.
    """
    require_numba("the dense CRF")
    samples = data.splits[split]
    chosen = evenly_spaced(samples, limit)
    others = [sample for sample in samples if sample not in chosen]
    coarse = [replace(START, **values) for values in _products(COARSE)]
    steps = [offsets for offsets in _products(FINE) if any(offsets.values())]
    counter = ProgressCounter(
        len(chosen) * (1 + len(coarse) + len(steps)) + 2 * len(others), progress
    )
    with tempfile.TemporaryDirectory(prefix="pixelwise-crf-") as folder:
        scorer = _Scorer(predictor, data, Path(folder), counter)
        before = scorer.without_crf(chosen)
        trials = scorer.trials(chosen, coarse)
        center = trials[0].parameters
        # The smallest coarse values stay above 0 after a step down.
        fine = [
            replace(center, **{name: getattr(center, name) + by for name, by in offsets.items()})
            for offsets in steps
        ]
        trials = sorted(trials + scorer.trials(chosen, fine), key=lambda trial: -trial.mean_iou)
        best = trials[0]
        rest = None
        if others:
            rest_before = scorer.without_crf(others)
            (rest_after,) = scorer.trials(others, [best.parameters])
            rest = CRFGain(len(others), rest_before, rest_after.mean_iou)
    return CRFSearch(trials, CRFGain(len(chosen), before, best.mean_iou), rest)


def evenly_spaced(samples: list[Sample], count: int) -> list[Sample]:
    """Return up to `count` samples, evenly spaced."""
    indices = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[i] for i in sorted(set(indices.tolist()))]


def _products(axes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all combinations. The weight varies fastest, because it reuses the lattices."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


class _Scorer:
    """Scores images without and with a CRF. Computes the probabilities of each image once."""

    def __init__(
        self, predictor: Predictor, data: SegmentationData, folder: Path, counter: ProgressCounter
    ) -> None:
        self.predictor, self.data, self.folder, self.counter = predictor, data, folder, counter
        self.files: dict[str, Path] = {}

    def probabilities(self, sample: Sample, image: Pixels) -> NDArray[np.float32]:
        if sample.name in self.files:
            stored: NDArray[np.float32] = np.load(self.files[sample.name])
            return stored
        computed = softmax(self.predictor.logits(image))
        self.files[sample.name] = self.folder / f"{len(self.files)}.npy"
        np.save(self.files[sample.name], computed)
        return computed

    def without_crf(self, samples: Sequence[Sample]) -> float:
        """Return the mean IoU without a CRF."""
        matrix = ConfusionMatrix(len(self.data.classes))
        for sample in samples:
            image, truth = self.data.read(sample)
            matrix.update(truth, label_map(self.probabilities(sample, image)))
            self.counter.count()
        return matrix.scores().mean_iou

    def trials(self, samples: Sequence[Sample], sets: Sequence[CRFParameters]) -> list[Trial]:
        """Score each set of parameters, best first. The sort is stable."""
        matrices = [ConfusionMatrix(len(self.data.classes)) for _ in sets]
        for sample in samples:
            image, truth = self.data.read(sample)
            refined = dense_crfs(as_shown(image), self.probabilities(sample, image), sets)
            for matrix, probabilities in zip(matrices, refined, strict=True):
                matrix.update(truth, label_map(probabilities))
                self.counter.count()
        scored = zip(sets, matrices, strict=True)
        trials = [Trial(chosen, matrix.scores().mean_iou) for chosen, matrix in scored]
        return sorted(trials, key=lambda trial: -trial.mean_iou)
