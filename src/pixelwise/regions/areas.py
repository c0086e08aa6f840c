"""How much of an image each class covers, in how many components, and with what confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE, Classes
from pixelwise.regions.components import Labels, find_components


@dataclass(frozen=True)
class ClassArea:
    """The area of one class in one image.

    Attributes:
        name: Name of the class.
        pixels: Number of pixels.
        share: Fraction (0..1) of the pixels that are not ignored; 0 if all are ignored.
        components: Number of connected components.
        largest: Number of pixels of the largest component.
        confidence: Mean probability (0..1) of the class over its pixels; None if the class is
            absent or no probabilities were computed.
        square_meters: Area on the ground; None if the size of a pixel is not known.
    """

    name: str
    pixels: int
    share: float
    components: int
    largest: int
    confidence: float | None = None
    square_meters: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the row of a table, with readable column names."""
        return {
            "class": self.name,
            "pixels": self.pixels,
            "share": self.share,
            "components": self.components,
            "largest_component": self.largest,
            "mean_confidence": self.confidence,
            "square_meters": self.square_meters,
        }


def measure_areas(
    labels: Labels,
    classes: Classes,
    *,
    confidence: NDArray[np.float32] | None = None,
    pixel_area: float | None = None,
) -> list[ClassArea]:
    """Measure the area of each class in labels (H, W), including classes that are absent.

    `confidence` is the probability of the label of each pixel (H, W). For `pixel_area` and errors
    see `Segmentation.areas`.
    """
    components = find_components(labels)
    pixels = np.bincount(labels.reshape(-1), minlength=256)
    valid = int(pixels.sum() - pixels[IGNORE])
    sums = None
    if confidence is not None:
        sums = np.bincount(labels.reshape(-1), weights=confidence.reshape(-1), minlength=256)
    areas = []
    for index, name in enumerate(classes.names):
        count = int(pixels[index])
        sizes = components.sizes[components.labels == index]
        areas.append(
            ClassArea(
                name,
                count,
                count / valid if valid else 0.0,
                len(sizes),
                int(sizes.max(initial=0)),
                None if sums is None or not count else float(sums[index] / count),
                None if pixel_area is None else count * pixel_area,
            )
        )
    return areas
