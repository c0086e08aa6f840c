"""Predict images again, each with the network that has not seen it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pixelwise.data.dataset import Mask, SegmentationData
from pixelwise.data.pixel_format import Pixels
from pixelwise.data.source import Sample
from pixelwise.inference import Predictor

SCALES = (1.0, 1.5)
"""Scales whose probabilities are averaged: small objects are recognized in an upsampled image."""

Examined = Mapping[str, tuple[Sample, Path]]
"""Each image and the bundle of the network that has not seen it, by name."""


@dataclass(frozen=True)
class Predicted:
    """An image (H, W, C), its labels (H, W) and the predicted labels (H, W)."""

    sample: Sample
    image: Pixels
    labels: Mask
    predicted: Mask


def predict_again(
    images: Examined, data: SegmentationData, names: Iterable[str]
) -> Iterator[Predicted]:
    """Predict images, network by network, so that one of them is in memory at a time."""
    loaded: tuple[Path, Predictor] | None = None
    for name in sorted(names, key=lambda name: (str(images[name][1]), name)):
        sample, bundle = images[name]
        if loaded is None or loaded[0] != bundle:
            loaded = bundle, Predictor.load(bundle, runtime="torch", scales=SCALES)
        image, labels = data.read(sample)
        yield Predicted(sample, image, labels, loaded[1].predict_labels(image))
