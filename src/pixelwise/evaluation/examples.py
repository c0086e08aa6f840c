"""Predictions of single images, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.pixel_format import Pixels, as_shown

MAX_SIDE = 640
"""Longest side of the shown images, in pixels. It keeps pages small enough to mail."""


@dataclass(frozen=True)
class Example:
    """A validation image with its true and predicted mask.

    Attributes:
        name: File name.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) uint8 true classes 0..C-1, IGNORE for pixels left out.
        predicted: (H, W) uint8 predicted classes.
        score: Mean IoU over the classes present in this image, 0..1.
        confident_errors: (H, W) bool, wrong pixels with a high confidence. If given, the error map
            shows these only.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    score: float
    confident_errors: NDArray[np.bool_] | None = None


def fit(pixels: NDArray[np.uint8], resampling: Image.Resampling) -> NDArray[np.uint8]:
    """Shrink an image or a mask whose longest side exceeds MAX_SIDE."""
    height, width = pixels.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


class ExampleRecorder:
    """Keeps the predictions of a few images of a split, shrunk, while the split is scored.

    Args:
        names: Names of the images of the split, in order.
        count: Number of images to keep. They are spread evenly over the split.
    """

    def __init__(self, names: Sequence[str], *, count: int) -> None:
        places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
        self.order = {names[place]: position for position, place in enumerate(places)}
        self.examples: list[Example] = []

    def __call__(
        self, name: str, image: Pixels, truth: NDArray[np.uint8], predicted: NDArray[np.uint8]
    ) -> None:
        """Keep the prediction of an image (H, W, N) if it is one of those, without its score."""
        if name in self.order:
            true, seen = (fit(mask, Image.Resampling.NEAREST) for mask in (truth, predicted))
            shown = fit(as_shown(image), Image.Resampling.BOX)
            self.examples.append(Example(name, shown, true, seen, score=float("nan")))
