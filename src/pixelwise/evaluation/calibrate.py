"""Calibrate a network: the temperature of its probabilities, and which images are unlike its data.

The temperature divides all logits, so it changes confidences but no label (arXiv:1706.04599,
section 4.2). Both results are measured by cross-validation over two halves of the images, and then
determined from all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.errors import InputError
from pixelwise.evaluation.calibration import Calibration
from pixelwise.evaluation.confusion import to_plain
from pixelwise.evaluation.logit_samples import SampledLogits, divide_in_halves, sample_logits
from pixelwise.file_io import check_writable
from pixelwise.inference import Predictor
from pixelwise.inference.export_manifest import ExportManifest, find_exports, is_export
from pixelwise.weights.bundle_header import bundle_digest
from pixelwise.weights.published.catalog import find_bundle
from pixelwise.weights.stored_calibration import FILE, StoredCalibration, write_calibration

FALSE_ALARMS = 0.05
"""The fraction of ordinary images that may be flagged."""
LOWEST, HIGHEST = 0.05, 100.0
"""The range of temperatures."""


@dataclass(frozen=True)
class CalibrationError:
    """How well probabilities agree with the truth.

    Attributes:
        negative_log_likelihood: Mean over pixels of -log(probability of the true class), in nats.
        expected_calibration_error: Mean distance between confidence and accuracy, 0..1.
    """

    negative_log_likelihood: float
    expected_calibration_error: float

    def to_json(self) -> dict[str, float | None]:
        return {name: to_plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class CalibrationReport:
    """The outcome of a calibration.

    Attributes:
        stored: What is stored with the network, determined from all images.
        before: The probabilities without a temperature.
        after: The probabilities of each half of the images, with the temperature that was fitted
            to the other half.
        pixels: The number of pixels that these are measured on.
    """

    stored: StoredCalibration
    before: CalibrationError
    after: CalibrationError
    pixels: int

    def to_json(self) -> dict[str, Any]:
        return {
            **self.stored.to_json(),
            "pixels": self.pixels,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }


def calibrate(
    predictor: Predictor,
    data: SegmentationData,
    split: str = "val",
    *,
    progress: ProgressCallback | None = None,
) -> CalibrationReport:
    """Fit the temperature of a network, and the least familiarity of ordinary images.

    For the arguments and errors see `sample_logits`.

    Returns:
        The report. Its temperature is 1 if none lowers the negative log-likelihood of the half that
        it was not fitted to.
    """
    images = sample_logits(predictor, data, split, progress=progress)
    halves = divide_in_halves([image.name for image in images])
    before, after, false = _Errors(), _Errors(), 0
    for tested in halves:
        fitted = [image for i, image in enumerate(images) if i not in tested]
        temperature, lowest = fit_temperature(fitted), _lowest(fitted)
        for image in (images[i] for i in sorted(tested)):
            before.add(image, 1.0)
            after.add(image, temperature)
            false += image.familiarity < lowest
    useful = after.log_loss < before.log_loss
    stored = StoredCalibration(
        fit_temperature(images) if useful else 1.0,
        _lowest(images),
        false / len(images),
        len(images),
    )
    final = after if useful else before
    return CalibrationReport(stored, before.result(), final.result(), before.pixels)


def store_calibration(path: Path, stored: StoredCalibration) -> tuple[Path, ...]:
    """Store a calibration in a bundle and in its exports next to it, or in one export.

    Returns:
        The files and folders that it was stored in. Exports that are damaged or of another version
        of the bundle are left out.

    Raises:
        InputError: If a file cannot be written.
    """
    path = find_bundle(path)
    places = [path]
    if not is_export(path):
        digest = bundle_digest(path)
        for folder in find_exports(path).values():
            with suppress(InputError):  # damaged: nothing can be predicted with it
                if ExportManifest.load(folder).bundle == digest:
                    places.append(folder)
    for place in places:
        check_writable(place / FILE if place.is_dir() else place)
    for place in places:
        write_calibration(place, stored)
    return tuple(places)


def fit_temperature(images: Sequence[SampledLogits]) -> float:
    """Find the temperature with the least negative log-likelihood.

    That is a convex function of 1 / temperature. Bisection finds where its derivative is 0.
    """
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(30):
        middle = float(np.sqrt(low * high))
        if sum(_slope(image, middle) for image in images) > 0:
            high = middle
        else:
            low = middle
    return float(1 / np.sqrt(low * high))


def _slope(image: SampledLogits, scale: float) -> float:
    """The derivative of the negative log-likelihood with respect to 1 / temperature."""
    weights = np.exp(log_probabilities(image.logits, scale))
    expected = float((weights * image.logits).sum(dtype=np.float64))
    return expected - float(_of_truth(image.logits, image).sum(dtype=np.float64))


def log_probabilities(logits: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    scaled = logits * np.float32(scale)
    scaled -= scaled.max(axis=1, keepdims=True)
    scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return scaled


def _of_truth(values: NDArray[np.float32], image: SampledLogits) -> NDArray[np.float32]:
    return values[np.arange(len(values)), image.truth]


def _lowest(images: Sequence[SampledLogits]) -> float:
    """The familiarity below which FALSE_ALARMS of the images lie; none if there are few images."""
    return sorted(image.familiarity for image in images)[int(FALSE_ALARMS * len(images))]


class _Errors:
    """Adds up how well probabilities agree with the truth."""

    def __init__(self) -> None:
        self.calibration = Calibration()
        self.log_loss = 0.0

    @property
    def pixels(self) -> int:
        return int(self.calibration.pixels.sum())

    def add(self, image: SampledLogits, temperature: float) -> None:
        logs = log_probabilities(image.logits, 1 / temperature)
        self.log_loss -= float(_of_truth(logs, image).sum(dtype=np.float64))
        predicted = logs.argmax(axis=1).astype(np.uint8)
        self.calibration.update(image.truth, predicted, np.exp(logs.max(axis=1)))

    def result(self) -> CalibrationError:
        return CalibrationError(self.log_loss / self.pixels, self.calibration.error)
