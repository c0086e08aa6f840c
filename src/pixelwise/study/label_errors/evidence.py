"""How strongly a calibrated network contradicts each label of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.data.label_borders import at_border
from pixelwise.evaluation.calibrate import fit_temperature, log_probabilities
from pixelwise.evaluation.logit_samples import SampledLogits
from pixelwise.inference.results import softmax
from pixelwise.regions.components import require_ndimage

STRONGEST = 7.0
"""Evidence above this (odds of about 1000 to 1) counts as this: a network is never that certain."""
BANDS = (1.5, 2.5, 4.5, 8.5, 16.5)
"""Limits in pixels between bands of pixels that are equally far from the border of their label."""
FEW = 3
"""As many pixels of each class and band are taken to have next to no support."""


@dataclass(frozen=True)
class ClassThresholds:
    """What a network usually says about labels that are right, as in confident learning.

    Confident learning (arXiv:1911.00068, section 3.1) takes the mean probability of a class over
    the pixels with its label, its self-confidence, as the threshold of the class: a class that the
    network knows badly needs less for a prediction, and more for a contradiction.

    Attributes:
        temperature: Divides the logits.
        confidence: (C,) self-confidence of each class, 0..1. 1 for a class without labels.
        supports: The probabilities of the label at sampled pixels, ascending, by (class, band).
    """

    temperature: float
    confidence: NDArray[np.float32]
    supports: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)


def fit_thresholds(
    images: Sequence[SampledLogits], classes: int, bands: Sequence[NDArray[np.intp]]
) -> ClassThresholds:
    """Fit the temperature, and what is usual in each class, to sampled pixels.

    Args:
        images: The pixels of each image.
        classes: Number of classes.
        bands: The bands of the same pixels, of `border_bands`.
    """
    temperature = fit_temperature(images)
    truth = np.concatenate([image.truth for image in images])
    band = np.concatenate(bands)
    logs = [log_probabilities(image.logits, 1 / temperature) for image in images]
    own = np.exp(np.take_along_axis(np.concatenate(logs), truth[:, None].astype(np.intp), 1)[:, 0])
    counts = np.bincount(truth, minlength=classes)
    sums = np.bincount(truth, weights=own, minlength=classes)
    mean = np.divide(sums, counts, out=np.ones(classes), where=counts > 0)
    supports = {
        (label, number): np.sort(own[(truth == label) & (band == number)])
        for label in range(classes)
        for number in range(len(BANDS) + 1)
    }
    return ClassThresholds(temperature, mean.astype(np.float32), supports)


def border_bands(labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the band (H, W) of each pixel, 0..len(BANDS), by its distance to another label."""
    border = at_border(labels)
    if not border.any():
        return np.full(labels.shape, len(BANDS), np.intp)
    distance = require_ndimage().distance_transform_edt(~border)
    return np.asarray(np.digitize(distance + 1, BANDS), np.intp)


@dataclass(frozen=True)
class Evidence:
    """The labels of an image against the prediction of a network.

    Attributes:
        labels: (H, W) labeled class indices and IGNORE.
        predicted: (H, W) predicted class indices.
        strength: (H, W) log of the odds of the predicted class against the labeled one, at most
            STRONGEST; 0 where they agree or nothing is labeled.
        probability: (H, W) calibrated probability of the predicted class, 0..1.
        surprise: (H, W) how unusual it is that a pixel of this class, as far from the border of its
            label, has as little support: the negative log of the share of such pixels.
    """

    labels: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    strength: NDArray[np.float32]
    probability: NDArray[np.float32]
    surprise: NDArray[np.float32]

    @property
    def agreement(self) -> float:
        """The fraction of the labeled pixels that are predicted so; NaN if nothing is labeled."""
        labeled = self.labels != IGNORE
        return float((self.labels == self.predicted)[labeled].mean()) if labeled.any() else np.nan


def weigh(
    logits: NDArray[np.float32], labels: NDArray[np.uint8], thresholds: ClassThresholds
) -> Evidence:
    """Compare the (C, H, W) logits of a network with the (H, W) labels of the image."""
    probabilities = softmax(logits / np.float32(thresholds.temperature))
    predicted = probabilities.argmax(axis=0).astype(np.uint8)
    labeled = labels != IGNORE
    own = np.where(labeled, labels, 0).astype(np.intp)
    highest = probabilities.max(axis=0)
    of_label = np.take_along_axis(probabilities, own[None], axis=0)[0]
    smallest = np.float32(np.exp(-2 * STRONGEST))
    odds = np.log(highest) - np.log(np.maximum(of_label, smallest))
    contradicted = labeled & (predicted != labels)
    strength = np.where(contradicted, np.minimum(odds, np.float32(STRONGEST)), 0)
    surprise = _surprise(labels, of_label, contradicted, thresholds)
    return Evidence(labels, predicted, strength.astype(np.float32), highest, surprise)


def _surprise(
    labels: NDArray[np.uint8],
    support: NDArray[np.float32],
    contradicted: NDArray[np.bool_],
    thresholds: ClassThresholds,
) -> NDArray[np.float32]:
    places = np.flatnonzero(contradicted)
    own, bands = labels.reshape(-1)[places], border_bands(labels).reshape(-1)[places]
    support, values = support.reshape(-1)[places], np.zeros(len(places), np.float32)
    for (label, number), usual in thresholds.supports.items():
        pixels = (own == label) & (bands == number)
        as_little = np.searchsorted(usual, support[pixels], side="right")
        values[pixels] = -np.log((as_little + FEW) / (len(usual) + FEW))
    surprise = np.zeros(labels.shape, np.float32)
    surprise.reshape(-1)[places] = values
    return surprise
