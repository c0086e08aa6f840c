"""Calibrate a network: the temperature of its probabilities, and which images are unlike its data.

The temperature divides all logits, so it changes confidences but no label (arXiv:1706.04599,
section 4.2). Both results are measured by cross-validation over two halves of the images, and then
determined from all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.errors import InputError
from pixelwise.evaluation.calibration import Calibration
from pixelwise.evaluation.confusion import to_plain
from pixelwise.file_io import check_writable
from pixelwise.inference import Predictor
from pixelwise.inference.export_manifest import ExportManifest, find_exports, is_export
from pixelwise.inference.results import familiarity
from pixelwise.weights.bundle_header import bundle_digest
from pixelwise.weights.published.catalog import find_bundle
from pixelwise.weights.stored_calibration import FILE, StoredCalibration, write_calibration

FALSE_ALARMS = 0.05
"""The fraction of ordinary images that may be flagged."""
IMAGE_PIXELS = 4096
"""The number of labeled pixels, at random places, that are taken from an image."""
LOGITS = 20_000_000
"""The largest number of logits in memory, about: of more images, fewer pixels are taken."""
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


@dataclass(frozen=True)
class SampledLogits:
    """Some labeled pixels of an image.

    Attributes:
        name: Name of the image.
        logits: (pixels, classes).
        truth: (pixels,) class indices.
        familiarity: How familiar the whole image is to the network.
    """

    name: str
    logits: NDArray[np.float32]
    truth: NDArray[np.uint8]
    familiarity: float


def calibrate(
    predictor: Predictor,
    data: SegmentationData,
    split: str = "val",
    *,
    progress: ProgressCallback | None = None,
) -> CalibrationReport:
    """Fit the temperature of a network, and the least familiarity of ordinary images.

    The halves are made of whole sequences, that is of images whose names differ only in the number
    at the end. A single sequence is cut in the middle.

    Args:
        predictor: The network, without a CRF or TTA.
        data: A dataset with the network's classes.
        split: Name of the split.
        progress: Called with (done, total) after each image.

    Returns:
        The report. Its temperature is 1 if none lowers the negative log-likelihood of the half that
        it was not fitted to.

    Raises:
        InputError: If fewer than two images have labeled pixels, or the predictor has a CRF or TTA.
    """
    if predictor.crf is not None or not predictor.tta.single:
        raise InputError("calibrate: needs the logits of the network: omit the CRF and TTA")
    images = _sample(predictor, data, split, progress)
    if len(images) < 2:
        raise InputError(
            f"{data.root}: {len(images)} images of {split} have labeled pixels: calibration "
            "compares two halves of the split: label at least 2"
        )
    halves = _halves([image.name for image in images])
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


def _sample(
    predictor: Predictor, data: SegmentationData, split: str, progress: ProgressCallback | None
) -> list[SampledLogits]:
    """Predict the images and keep some labeled pixels of each, in the order of their names."""
    samples = sorted(data.splits[split], key=lambda sample: sample.name)
    sampler = PixelSampler(len(data.classes), len(samples))
    for done, sample in enumerate(samples, 1):
        pixels, truth = data.read(sample)
        if (truth != IGNORE).any():
            sampler.add(sample.name, predictor.logits(pixels), truth)
        if progress is not None:
            progress(done, len(samples))
    return sampler.images


class PixelSampler:
    """Keeps some labeled pixels of each image, at random places.

    Args:
        classes: Number of classes.
        images: Number of images, which decides how many pixels of each are kept.
    """

    def __init__(self, classes: int, images: int) -> None:
        self.most = max(64, min(IMAGE_PIXELS, LOGITS // (classes * max(1, images))))
        self.images: list[SampledLogits] = []
        self._rng = np.random.default_rng(0)

    def add(
        self, name: str, logits: NDArray[np.float32], truth: NDArray[np.uint8]
    ) -> NDArray[np.intp]:
        """Add an image with logits (C, H, W) and labels (H, W); nothing if none is labeled.

        Returns:
            The places of the pixels that were kept, as indices of the flattened labels.
        """
        labeled = np.flatnonzero(truth.reshape(-1) != IGNORE)
        if not len(labeled):
            return labeled
        chosen = self._rng.choice(labeled, min(self.most, len(labeled)), replace=False)
        kept = np.ascontiguousarray(logits.reshape(len(logits), -1)[:, chosen].T)
        sampled = SampledLogits(name, kept, truth.reshape(-1)[chosen], familiarity(logits))
        self.images.append(sampled)
        return np.asarray(chosen, np.intp)


def _halves(names: Sequence[str]) -> tuple[set[int], set[int]]:
    """Divide images, given in the order of their names, into two halves of whole sequences."""
    sequences: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        sequences.setdefault(re.sub(r"[\d_-]+$", "", Path(name).stem), []).append(index)
    if len(sequences) == 1:
        middle = len(names) // 2
        return set(range(middle)), set(range(middle, len(names)))
    first: set[int] = set()
    second: set[int] = set()
    for members in sorted(sequences.values(), key=len, reverse=True):
        min(first, second, key=len).update(members)
    return first, second


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
