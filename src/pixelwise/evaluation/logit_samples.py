"""Logits of labeled pixels, on which parameters of a network's output are fitted and measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.errors import InputError
from pixelwise.inference import Predictor
from pixelwise.inference.results import familiarity

IMAGE_PIXELS = 4096
"""The number of labeled pixels, at random places, that are taken from an image."""
LOGITS = 20_000_000
"""The largest number of logits in memory, about: of more images, fewer pixels are taken."""


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


def sample_logits(
    predictor: Predictor,
    data: SegmentationData,
    split: str,
    *,
    most: int = IMAGE_PIXELS,
    progress: ProgressCallback | None = None,
) -> list[SampledLogits]:
    """Predict the images of a split and keep some labeled pixels of each, in the order of names.

    Args:
        predictor: The network, without a CRF or TTA.
        data: A dataset with the network's classes.
        split: Name of the split.
        most: Most pixels of an image.
        progress: Called with (done, total) after each image.

    Raises:
        InputError: If fewer than two images have labeled pixels, or the predictor has a CRF or TTA.
    """
    if predictor.crf is not None or not predictor.tta.single:
        raise InputError("the logits of the network are needed: omit the CRF and TTA")
    samples = sorted(data.splits[split], key=lambda sample: sample.name)
    sampler = PixelSampler(len(data.classes), len(samples), most=most)
    for done, sample in enumerate(samples, 1):
        pixels, truth = data.read(sample)
        if (truth != IGNORE).any():
            sampler.add(sample.name, predictor.logits(pixels), truth)
        if progress is not None:
            progress(done, len(samples))
    if len(sampler.images) < 2:
        raise InputError(
            f"{data.root}: {len(sampler.images)} images of {split} have labeled pixels, but two "
            "halves of the split are compared: label at least 2"
        )
    return sampler.images


class PixelSampler:
    """Keeps some labeled pixels of each image, at random places.

    Args:
        classes: Number of classes.
        images: Number of images, which decides how many pixels of each are kept.
        most: Most pixels of an image.
    """

    def __init__(self, classes: int, images: int, *, most: int = IMAGE_PIXELS) -> None:
        self.most = max(64, min(most, LOGITS // (classes * max(1, images))))
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


def divide_in_halves(names: Sequence[str]) -> tuple[set[int], set[int]]:
    """Divide images, given in the order of their names, into two halves of whole sequences.

    A sequence is images whose names differ only in the number at the end. A single sequence is cut
    in the middle.
    """
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
