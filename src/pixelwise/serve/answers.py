"""Encodes a prediction in the form that a client asks for."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.png_encoding import encode_palette, encode_rgb
from pixelwise.data.rle import encode_counts
from pixelwise.inference import Prediction, Segmentation
from pixelwise.regions.polygons import BACKGROUND

PNG, JSON, NPY, GEOJSON = (
    "image/png",
    "application/json",
    "application/x-npy",
    "application/geo+json",
)


@dataclass(frozen=True)
class Answer:
    """The body of a response and its media type."""

    body: bytes
    media_type: str


@dataclass(frozen=True)
class Cleaning:
    """How masks are cleaned before they are encoded: the arguments of `Segmentation.clean`."""

    min_area: int = 0
    fill_holes: bool = False
    background: str = BACKGROUND

    def apply(self, result: Segmentation) -> Segmentation:
        return result.clean(**vars(self)) if self.min_area or self.fill_holes else result


@dataclass(frozen=True)
class Output:
    """A form of result.

    Attributes:
        encode: Makes the answer.
        needs_probabilities: Whether the network's probabilities are needed beside the mask.
    """

    encode: Callable[[Any], Answer]
    needs_probabilities: bool


def _mask(result: Segmentation) -> Answer:
    return Answer(encode_palette(result.mask, result.classes.palette()), PNG)


def _labels(result: Segmentation) -> Answer:
    """Class indices, 255 for ignored pixels, as an 8-bit gray image."""
    return Answer(_gray(result.labels), PNG)


def _overlay(result: Segmentation) -> Answer:
    return Answer(encode_rgb(np.asarray(result.overlay(legend=False))), PNG)


def _confidence(result: Prediction) -> Answer:
    """The probability of the label of each pixel, 0..255 for 0..1."""
    return Answer(_gray(np.rint(result.confidence * 255).astype(np.uint8)), PNG)


def _probabilities(result: Prediction) -> Answer:
    """A NumPy file with (C, H, W) float16."""
    stream = io.BytesIO()
    np.save(stream, result.probabilities.astype(np.float16))
    return Answer(stream.getvalue(), NPY)


def _rle(result: Segmentation) -> Answer:
    """Uncompressed RLE of each class that occurs, as in COCO: column by column, zeros first."""
    height, width = result.labels.shape
    segments = []
    for index in np.unique(result.labels).tolist():
        if index < len(result.classes):
            counts = encode_counts(result.labels == index).tolist()
            name = result.classes.names[index]
            segments.append({"class": name, "size": [height, width], "counts": counts})
    return _json({"height": height, "width": width, "segments": segments})


def _table(result: Prediction) -> Answer:
    height, width = result.labels.shape
    about = {"height": height, "width": width, "flagged": result.flagged}
    return _json({**about, "classes": result.table()})


def _polygons(result: Prediction) -> Answer:
    import shapely

    features = [
        {
            "type": "Feature",
            "geometry": json.loads(shapely.to_geojson(polygon.outline)),
            "properties": {
                "class": polygon.name,
                "pixels": polygon.pixels,
                "confidence": polygon.confidence,
            },
        }
        for polygon in result.polygons()
    ]
    content = {"type": "FeatureCollection", "features": features}
    return Answer(json.dumps(content).encode(), GEOJSON)


def _gray(values: NDArray[np.uint8]) -> bytes:
    return encode_palette(values, bytes(value for value in range(256) for _ in range(3)))


def _json(content: Any) -> Answer:
    return Answer(json.dumps(content, ensure_ascii=False).encode(), JSON)


OUTPUTS = {
    "mask": Output(_mask, False),
    "labels": Output(_labels, False),
    "overlay": Output(_overlay, False),
    "rle": Output(_rle, False),
    "polygons": Output(_polygons, True),
    "table": Output(_table, True),
    "confidence": Output(_confidence, True),
    "probabilities": Output(_probabilities, True),
}
"""All forms of results, by name."""
