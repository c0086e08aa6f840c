"""Search a dense CRF's parameters on labeled images, coarse to fine as in arXiv:1606.00915."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import CRFParameters, dense_crfs
from pixelwise.data.dataset import SegmentationData
from pixelwise.data.pixel_format import Pixels, as_shown
from pixelwise.data.source import Sample
from pixelwise.evaluation.confusion import ConfusionMatrix, plain
from pixelwise.inference import Predictor
from pixelwise.inference.results import softmax
from pixelwise.ops.numba_support import require_numba

# Section 4.1 of the paper: the kernel on position is fixed, the other three are searched.
START = CRFParameters(bi_w=4, bi_xy=50, bi_rgb=4, pos_w=3, pos_xy=3)
# The paper's grid has 30 to 100 in steps of 10 for bi_xy: on CamVid's 480x360, smaller than PASCAL
# VOC's images, the best lay under it.
COARSE = {
    "bi_xy": (10, 20, 30, 40, 50, 60, 80, 100),
    "bi_rgb": range(3, 7),
    "bi_w": range(3, 7),
}
FINE = {"bi_xy": (-5, 0, 5), "bi_rgb": (-0.5, 0, 0.5), "bi_w": (-0.5, 0, 0.5)}
"""Steps around the best of the coarse grid."""


@dataclass(frozen=True)
class Trial:
    """Parameters and the mean IoU (0..1) that they reach on the images of the search."""

    parameters: CRFParameters
    mean_iou: float


@dataclass(frozen=True)
class Comparison:
    """Mean IoU (0..1) of one set of images, without the CRF and with it; NaN if all is void."""

    images: int
    before: float
    after: float

    def to_json(self) -> dict[str, float | None]:
        return {
            "images": self.images,
            "before": plain(self.before),
            "after": plain(self.after),
        }


@dataclass(frozen=True)
class CRFSearch:
    """What a search found.

    trials: all that was tried, best first.
    searched: the images that the parameters were chosen on, where the gain is flattered.
    rest: the split's other images, which had no say; None where there are none.
    """

    trials: list[Trial]
    searched: Comparison
    rest: Comparison | None

    @property
    def best(self) -> CRFParameters:
        return self.trials[0].parameters

    @property
    def helps(self) -> bool:
        """Whether the score rises, on the images that had no say if there are any."""
        fair = self.rest or self.searched
        return fair.after > fair.before

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `parameters` is what `predict --crf-set FILE` reads."""
        return {
            "parameters": self.best.to_json(),
            "helps": self.helps,
            "searched": self.searched.to_json(),
            "rest": None if self.rest is None else self.rest.to_json(),
            "trials": [
                {**trial.parameters.to_json(), "mean_iou": plain(trial.mean_iou)}
                for trial in self.trials
            ],
        }


def search_crf(
    predictor: Predictor,
    data: SegmentationData,
    split: str,
    *,
    limit: int = 20,
    progress: Callable[[int, int], None] | None = None,
) -> CRFSearch:
    """Try the coarse grid, then the fine one around its best, on up to `limit` images.

    The images are taken evenly over `split`. The network runs once for each; its probabilities
    are kept in temporary files. The split's other images then compare the best parameters with
    no CRF. progress: called with (done, total) after each image's network and each CRF.

    Raises InputError where numba is not installed.
    """
    require_numba("the dense CRF")
    samples = data.splits[split]
    picked = set(np.linspace(0, len(samples) - 1, min(limit, len(samples))).round().astype(int))
    chosen = [sample for i, sample in enumerate(samples) if i in picked]
    others = [sample for i, sample in enumerate(samples) if i not in picked]
    coarse = _grid(COARSE)
    fine_size = len(_products(FINE)) - 1
    count = _Counter(progress, len(chosen) * (1 + len(coarse) + fine_size) + 2 * len(others))
    with tempfile.TemporaryDirectory(prefix="pixelwise-crf-") as folder:
        scorer = _Scorer(predictor, data, Path(folder), count)
        before = scorer.plain(chosen)
        trials = scorer.trials(chosen, coarse)
        around = trials[0].parameters
        # The smallest of the coarse grid stay over 0 by a step down.
        fine = [
            replace(around, **{name: getattr(around, name) + step for name, step in steps.items()})
            for steps in _products(FINE)
            if any(steps.values())
        ]
        trials = _ordered(trials + scorer.trials(chosen, fine))
        best = trials[0]
        rest = None
        if others:
            rest_before = scorer.plain(others)
            (rest_after,) = scorer.trials(others, [best.parameters])
            rest = Comparison(len(others), rest_before, rest_after.mean_iou)
    return CRFSearch(trials, Comparison(len(chosen), before, best.mean_iou), rest)


def _products(axes: dict[str, Any]) -> list[dict[str, Any]]:
    """All combinations, the last name varying fastest: the weight, for which lattices are kept."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _grid(axes: dict[str, Any]) -> list[CRFParameters]:
    return [replace(START, **values) for values in _products(axes)]


def _ordered(trials: list[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: -trial.mean_iou)


class _Counter:
    """Adds up what is done, for a `progress` callback."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.done, self.total = progress, 0, total

    def step(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


class _Scorer:
    """Scores images without and with a CRF, from probabilities that are computed once."""

    def __init__(
        self, predictor: Predictor, data: SegmentationData, folder: Path, counter: _Counter
    ) -> None:
        self.predictor, self.data, self.folder, self.counter = predictor, data, folder, counter
        self.files: dict[str, Path] = {}

    def probabilities(self, sample: Sample, image: Pixels) -> NDArray[np.float32]:
        path = self.files.get(sample.name)
        if path is not None:
            kept: NDArray[np.float32] = np.load(path)
            return kept
        computed = softmax(self.predictor.logits(image))
        path = self.folder / f"{len(self.files)}.npy"
        np.save(path, computed)
        self.files[sample.name] = path
        return computed

    def plain(self, samples: Sequence[Sample]) -> float:
        """Mean IoU without a CRF."""
        matrix = ConfusionMatrix(len(self.data.classes))
        for sample in samples:
            image, truth = self.data.read(sample)
            matrix.update(truth, _labels(self.probabilities(sample, image)))
            self.counter.step()
        return matrix.scores().mean_iou

    def trials(self, samples: Sequence[Sample], sets: Sequence[CRFParameters]) -> list[Trial]:
        """Mean IoU with each of the parameters, best first; of equals the first."""
        matrices = [ConfusionMatrix(len(self.data.classes)) for _ in sets]
        for sample in samples:
            image, truth = self.data.read(sample)
            refined = dense_crfs(as_shown(image), self.probabilities(sample, image), sets)
            for matrix, probabilities in zip(matrices, refined, strict=True):
                matrix.update(truth, _labels(probabilities))
                self.counter.step()
        return _ordered(
            [
                Trial(chosen, matrix.scores().mean_iou)
                for chosen, matrix in zip(sets, matrices, strict=True)
            ]
        )


def _labels(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    labels: NDArray[np.uint8] = probabilities.argmax(axis=0).astype(np.uint8)
    return labels
