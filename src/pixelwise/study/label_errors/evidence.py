"""How strongly a calibrated network contradicts each label of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.evaluation.calibrate import fit_temperature, log_probabilities
from pixelwise.evaluation.logit_samples import SampledLogits
from pixelwise.inference.results import softmax

STRONGEST = 7.0
"""Evidence above this (odds of about 1000 to 1) counts as this: a network is never that certain."""


@dataclass(frozen=True)
class ClassThresholds:
    """What a network usually says about labels that are right, as in confident learning.

    Confident learning (arXiv:1911.00068, section 3.1) takes the mean probability of a class over
    the pixels with its label, its self-confidence, as the threshold of the class: a class that the
    network knows badly needs less for a prediction, and more for a contradiction.

    Attributes:
        temperature: Divides the logits.
        confidence: (C,) self-confidence of each class, 0..1. 1 for a class without labels.
    """

    temperature: float
    confidence: NDArray[np.float32]


def fit_thresholds(images: Sequence[SampledLogits], classes: int) -> ClassThresholds:
    """Fit the temperature and the self-confidence of each class to sampled pixels."""
    temperature = fit_temperature(images)
    sums, counts = np.zeros(classes), np.zeros(classes)
    for image in images:
        logs = log_probabilities(image.logits, 1 / temperature)
        own = np.exp(logs[np.arange(len(logs)), image.truth])
        sums += np.bincount(image.truth, weights=own, minlength=classes)
        counts += np.bincount(image.truth, minlength=classes)
    mean = np.divide(sums, counts, out=np.ones(classes), where=counts > 0)
    return ClassThresholds(temperature, mean.astype(np.float32))


@dataclass(frozen=True)
class Evidence:
    """The labels of an image against the prediction of a network.

    Attributes:
        labels: (H, W) labeled class indices and IGNORE.
        predicted: (H, W) predicted class indices.
        strength: (H, W) log of the odds of the predicted class against the labeled one, at most
            STRONGEST; 0 where they agree or nothing is labeled.
        probability: (H, W) calibrated probability of the predicted class, 0..1.
    """

    labels: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    strength: NDArray[np.float32]
    probability: NDArray[np.float32]

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
    return Evidence(labels, predicted, strength.astype(np.float32), highest)
