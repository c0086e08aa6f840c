"""Fit error = a n^-b + c to scores of trainings on n images, with an interval.

Few sizes determine the exponent b poorly, so it has a log-normal prior. The interval comes from
resamples: each draws val images and the differences between trainings, and also the center of the
prior, so that it is as wide as the exponent is uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelwise.evaluation.bootstrap import RESAMPLES, SEED, interval, resampled_sums
from pixelwise.evaluation.confusion import ratios

LEVEL = 0.9
EXPONENT, EXPONENT_SPREAD = 0.5, 0.7
"""Median of the prior of b, and std of its logarithm: 90 % lie between 0.16 and 1.6."""
EXPONENTS = np.geomspace(0.05, 3.0, 48)
ONE_TRAINING = 0.015
"""Assumed std of IoU between trainings if no size was trained more than once. Three seeds of the
default network on CamVid have 0.004 to 0.02."""
LEAST_STD = 0.004
"""Std of the mean of a size that the fit assumes at least."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Scores of trainings, for the mean IoU (first) and the IoU of each class.

    Attributes:
        sizes: (S,) numbers of training images, ascending.
        seeds: (S,) numbers of trainings.
        errors: (S, 1 + C) mean of 1 - IoU of the trainings of each size. NaN for a class that is
            neither true nor predicted.
        resampled: (R, S, 1 + C) the same for each resample of val images and trainings.
        std: (1 + C,) std of IoU between two trainings of one size.
        residuals: (T, 1 + C) differences of trainings from the mean of their size, inflated to have
            the variance `std` squared; without any, drawn from a normal distribution.
    """

    sizes: Floats
    seeds: NDArray[np.int64]
    errors: Floats
    resampled: Floats
    std: Floats
    residuals: Floats

    def select(self, kept: NDArray[np.bool_]) -> Measured:
        """Return the sizes that a mask (S,) selects."""
        return Measured(
            self.sizes[kept],
            self.seeds[kept],
            self.errors[kept],
            self.resampled[:, kept],
            self.std,
            self.residuals,
        )


@dataclass(frozen=True)
class PowerLaw:
    """Fitted curves: of the measured scores (first), and of each resample.

    Attributes:
        a, b, c: (1 + R, 1 + C) parameters of error = a n^-b + c.
    """

    a: Floats
    b: Floats
    c: Floats

    def iou(self, images: float) -> Floats:
        """Return IoU (1 + R, 1 + C) for a number of training images."""
        values: Floats = 1 - self.a * images**-self.b - self.c
        return values


def measure(counts_by_size: dict[int, list[NDArray[np.int64]]]) -> Measured:
    """Score trainings, and resample them.

    Args:
        counts_by_size: For each number of images, the (N, 3, C) counts of each training on the same
            N val images.
    """
    sizes = sorted(counts_by_size)
    exact = [np.stack([_errors(run.sum(axis=0)) for run in counts_by_size[n]]) for n in sizes]
    inflated = [
        (runs - runs.mean(axis=0)) * np.sqrt(len(runs) / (len(runs) - 1))
        for runs in exact
        if len(runs) > 1
    ]
    rng = np.random.default_rng(SEED)
    columns = exact[0].shape[1]
    residuals = (
        np.concatenate(inflated)
        if inflated
        else ONE_TRAINING * rng.standard_normal((RESAMPLES, columns))
    )
    by_image = np.stack(
        [
            np.mean([_errors(resampled_sums(run)) for run in counts_by_size[n]], axis=0)
            for n in sizes
        ],
        axis=1,
    )
    seeds = np.array([len(counts_by_size[n]) for n in sizes])
    noise = np.stack([draw_residuals(residuals, int(k), rng) for k in seeds], axis=1)
    return Measured(
        np.array(sizes, dtype=np.float64),
        seeds,
        np.stack([runs.mean(axis=0) for runs in exact]),
        by_image + noise,
        np.sqrt((residuals**2).mean(axis=0)),
        residuals,
    )


def draw_residuals(residuals: Floats, trainings: int, rng: np.random.Generator) -> Floats:
    """Return (RESAMPLES, 1 + C) means of that many residuals, drawn with replacement."""
    chosen = rng.integers(len(residuals), size=(RESAMPLES, trainings))
    means: Floats = residuals[chosen].mean(axis=1)
    return means


def fit(measured: Measured) -> PowerLaw:
    """Fit the curves by least squares with 0 <= a, 0 <= c and the prior of b."""
    rng = np.random.default_rng(SEED + 1)
    errors = np.concatenate([measured.errors[None], measured.resampled])
    shift = EXPONENT_SPREAD * rng.standard_normal(len(errors))
    shift[0] = 0
    center = np.log(EXPONENT) + shift[:, None]
    variance = measured.std**2 / measured.seeds[:, None] + LEAST_STD**2
    weights = 1 / variance  # (S, 1 + C)
    least = np.full(errors.shape[::2], np.inf)
    best = np.full((3, *least.shape), np.nan)
    for b in EXPONENTS:
        a, c, misfit = _fit_line(measured.sizes**-b, errors, weights)
        cost = misfit + ((np.log(b) - center) / EXPONENT_SPREAD) ** 2
        better = cost < least  # False for NaN
        least = np.where(better, cost, least)
        best = np.where(better, np.stack([a, np.full_like(a, b), c]), best)
    return PowerLaw(*best)


def up_to_half(sizes: Floats) -> NDArray[np.bool_]:
    """Mark the sizes up to half of the largest, which is rounded up: 184 is half of 367."""
    return np.asarray(sizes <= (sizes[-1] + 1) // 2)


def predict_largest(measured: Measured) -> tuple[Floats, Floats] | None:
    """Predict the scores of the largest size from those of at most half of its images.

    Returns:
        (1 + C,) IoU and (2, 1 + C) its interval, which includes the differences between trainings;
        None if fewer than two sizes are that small.
    """
    small = up_to_half(measured.sizes)
    if small.sum() < 2:
        return None
    iou = fit(measured.select(small)).iou(measured.sizes[-1])
    rng = np.random.default_rng(SEED + 2)
    noise = draw_residuals(measured.residuals, int(measured.seeds[-1]), rng)
    return iou[0], interval(iou[1:] + noise, level=LEVEL)


def _errors(class_counts: NDArray[np.float64] | NDArray[np.int64]) -> Floats:
    """Return 1 - IoU (..., 1 + C) from counts (..., 3, C): of the mean, and of each class."""
    scores = ratios(class_counts)
    return 1 - np.concatenate([scores["mean_iou"][..., None], scores["iou"]], axis=-1)


def _fit_line(x: Floats, y: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Fit y = a x + c with 0 <= a, 0 <= c over the axis 1 of (R, S, K); return the misfit, too."""
    total = weights.sum(axis=0)
    column = x[:, None]
    x_mean = (weights * column).sum(axis=0) / total
    y_mean = (weights * y).sum(axis=1) / total
    spread = (weights * (column - x_mean) ** 2).sum(axis=0)
    slope = (weights * (column - x_mean) * y).sum(axis=1) / spread
    through_origin = (weights * column * y).sum(axis=1) / (weights * column**2).sum(axis=0)
    offset = y_mean - slope * x_mean
    a = np.where(slope < 0, 0.0, np.where(offset < 0, through_origin, slope))
    c = np.where(slope < 0, y_mean, np.where(offset < 0, 0.0, offset))
    misfit = (weights * (y - a[:, None] * column - c[:, None]) ** 2).sum(axis=1)
    return a, c, misfit
