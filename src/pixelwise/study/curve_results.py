"""The results of a learning curve: what twice the data would bring, in words, JSON and a page."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import Classes
from pixelwise.evaluation.bootstrap import interval
from pixelwise.evaluation.confusion import ratios, to_plain
from pixelwise.pages.html_page import write_page
from pixelwise.study.curve_chart import draw_curve
from pixelwise.study.power_law import (
    LEVEL,
    Measured,
    PowerLaw,
    fit,
    measure,
    predict_largest,
    up_to_half,
)

SMALL_GAIN = 0.01
"""IoU that twice the data must bring for a class to count as limited by data."""
RESULTS, PAGE = "learning_curve.json", "learning_curve.html"
MEAN = "mean IoU"
LEAST_SIZES = 3
"""Sizes that a curve needs: it has three parameters."""


@dataclass(frozen=True)
class FinishedTraining:
    """A training of a study.

    Attributes:
        images: Number of training images.
        seed: Number of its seed, from 0.
        counts: (N, 3, C) counts of the val images, as in `ImageCounts`.
        seconds: Duration of the training and its evaluation.
    """

    images: int
    seed: int
    counts: NDArray[np.int64]
    seconds: float

    @property
    def mean_iou(self) -> float:
        """Its mean IoU on val, 0..1."""
        return float(ratios(self.counts.sum(axis=0))["mean_iou"])


@dataclass(frozen=True)
class Outlook:
    """What twice the training images would bring for a class, or for the mean IoU.

    Attributes:
        name: Name of the class, or "mean IoU".
        measured: Mean IoU of the trainings with the most images.
        gain: Predicted gain of IoU.
        gain_interval: Its interval at the level LEVEL.
        law: a, b and c of error = a n^-b + c.
    """

    name: str
    measured: float
    gain: float
    gain_interval: tuple[float, float]
    law: tuple[float, float, float]

    @property
    def verdict(self) -> str:
        """One of: not limited by data, limited by data, unclear, not measured."""
        low, high = self.gain_interval
        if np.isnan(self.measured) or np.isnan(low):
            return "not measured"
        if high < SMALL_GAIN:
            return "not limited by data"
        return "limited by data" if low >= SMALL_GAIN else "unclear"

    @property
    def sentence(self) -> str:
        """The verdict with its figures, in points of IoU."""
        low, high = (100 * bound for bound in self.gain_interval)
        gain = 100 * self.gain
        text = {
            "not measured": "it has no pixels in val, so nothing is known",
            "not limited by data": f"not limited by data: at most +{high:.1f} with twice the "
            "images",
            "limited by data": f"+{gain:.1f} with twice the images ({low:.1f} to {high:.1f})",
            "unclear": f"unclear: +{low:.1f} to +{high:.1f} with twice the images",
        }
        return f"{self.name}: {text[self.verdict]}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON. NaN becomes null."""
        return {
            "iou": to_plain(self.measured),
            "gain": to_plain(self.gain),
            "gain_interval": [to_plain(bound) for bound in self.gain_interval],
            "a_b_c": [to_plain(value) for value in self.law],
            "verdict": self.verdict,
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class LearningCurve:
    """The results of a study.

    Attributes:
        out: Its folder.
        classes: The classes.
        images: Number of training images.
        steps: Steps of each training.
        planned: Number of trainings that the study consists of.
        trainings: Those that are finished.
    """

    out: Path
    classes: Classes
    images: int
    steps: int
    planned: int
    trainings: list[FinishedTraining]

    @cached_property
    def measured(self) -> Measured | None:
        """The scores by size; None if fewer than LEAST_SIZES sizes have a finished training."""
        by_size: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
        for training in self.trainings:
            by_size[training.images].append(training.counts)
        return measure(by_size) if len(by_size) >= LEAST_SIZES else None

    @cached_property
    def law(self) -> PowerLaw | None:
        """The fitted curves."""
        return None if self.measured is None else fit(self.measured)

    @cached_property
    def outlooks(self) -> list[Outlook]:
        """What twice the data would bring: for the mean IoU, and for each class.

        Twice the data means twice `images`, also if the largest size that was trained is smaller.
        """
        measured, law = self.measured, self.law
        if measured is None or law is None:
            return []
        gains = law.iou(2 * self.images) - law.iou(self.images)
        low, high = interval(gains[1:], level=LEVEL)
        return [
            Outlook(
                name,
                1 - float(measured.errors[-1, k]),
                float(gains[0, k]),
                (float(low[k]), float(high[k])),
                (float(law.a[0, k]), float(law.b[0, k]), float(law.c[0, k])),
            )
            for k, name in enumerate((MEAN, *self.classes.names))
        ]

    @cached_property
    def check(self) -> dict[str, Any] | None:
        """How well the sizes up to half of the largest predict the mean IoU of the largest."""
        measured = self.measured
        predicted = None if measured is None else predict_largest(measured)
        if measured is None or predicted is None:
            return None
        iou, bounds = predicted
        return {
            "images": int(measured.sizes[-1]),
            "fitted_to": int(up_to_half(measured.sizes).sum()),
            "predicted": float(iou[0]),
            "interval": [float(bound) for bound in bounds[:, 0]],
            "measured": 1 - float(measured.errors[-1, 0]),
        }

    @property
    def page(self) -> Path:
        """The page with the curves."""
        return self.out / PAGE

    @property
    def summary(self) -> list[str]:
        """The results in sentences, the mean IoU first."""
        lines = [outlook.sentence for outlook in self.outlooks]
        if not lines:
            sizes = len({training.images for training in self.trainings})
            lines = [
                f"{len(self.trainings)} of {self.planned} trainings are finished, with {sizes} "
                f"numbers of images: a curve needs {LEAST_SIZES}"
            ]
        if (check := self.check) is not None:
            low, high = (100 * bound for bound in check["interval"])
            lines.append(
                f"check: the sizes up to half predict {100 * check['predicted']:.1f} % mean IoU "
                f"({low:.1f} to {high:.1f}) for {check['images']} images; measured were "
                f"{100 * check['measured']:.1f} %"
            )
        return lines

    @property
    def caveats(self) -> list[str]:
        """What limits the results, in sentences."""
        lines = []
        if len(self.trainings) < self.planned:
            lines.append(
                f"{len(self.trainings)} of {self.planned} trainings are finished: the same command "
                "continues"
            )
        seeds = {training.seed for training in self.trainings}
        if self.trainings and len(seeds) == 1:
            lines.append("one seed: the differences between trainings are assumed, not measured")
        if self.measured is not None and _falls(self.measured):
            lines.append(
                f"the mean IoU falls with more images, so trainings of {self.steps} steps are too "
                "short to learn from all of them: start another study with more steps"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the results as plain JSON."""
        names = self.classes.names
        outlooks = [outlook.to_json() for outlook in self.outlooks]
        return {
            "images": self.images,
            "steps": self.steps,
            "planned": self.planned,
            "level": LEVEL,
            "mean_iou": outlooks[0] if outlooks else None,
            "classes": dict(zip(names, outlooks[1:], strict=False)),
            "check": self.check,
            "caveats": self.caveats,
            "trainings": [
                {
                    "images": training.images,
                    "seed": training.seed,
                    "mean_iou": to_plain(training.mean_iou),
                    "iou": {
                        name: to_plain(value)
                        for name, value in zip(
                            names, ratios(training.counts.sum(axis=0))["iou"], strict=True
                        )
                    },
                    "seconds": training.seconds,
                }
                for training in self.trainings
            ],
        }

    def write_page(self) -> None:
        """Write a page with the curves.

        Raises:
            InputError: If the file cannot be written.
        """
        write_page(
            self.page,
            package="pixelwise.study",
            template="learning_curve.html.j2",
            curve=self,
            charts=self._charts(),
            level=round(100 * LEVEL),
        )

    def _charts(self) -> list[dict[str, Any]]:
        measured, law = self.measured, self.law
        if measured is None or law is None:
            return []
        ious = {
            (training.images, training.seed): 1
            - np.concatenate(
                [[1 - training.mean_iou], 1 - ratios(training.counts.sum(axis=0))["iou"]]
            )
            for training in self.trainings
        }
        grid = np.geomspace(measured.sizes[0], 2 * self.images, 25)
        curves = np.stack([law.iou(images) for images in grid])  # (25, 1 + R, 1 + C)
        return [
            {
                "outlook": outlook,
                "svg": draw_curve(
                    points=[
                        (images, float(values[k])) for (images, _), values in sorted(ious.items())
                    ],
                    line=list(zip(grid.tolist(), curves[:, 0, k].tolist(), strict=True)),
                    band=interval(curves[:, 1:, k].T, level=LEVEL).T.tolist(),
                    images=self.images,
                ),
            }
            for k, outlook in enumerate(self.outlooks)
            if outlook.verdict != "not measured"
        ]


def _falls(measured: Measured) -> bool:
    """Whether the mean IoU of the largest size is below that of another, by more than chance."""
    errors = measured.errors[:, 0]
    best = int(errors.argmin())
    chance = 1.64 * measured.std[0] * np.sqrt((1 / measured.seeds[[best, -1]]).sum())  # 5 %
    return bool(errors[-1] - errors[best] > max(SMALL_GAIN, chance))
