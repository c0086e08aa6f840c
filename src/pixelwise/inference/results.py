"""The results of a prediction: mask, probabilities, overlay."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import Pixels, as_shown
from pixelwise.data.png_encoding import encode_palette, encode_rgb
from pixelwise.file_io import atomic
from pixelwise.inference import overlay as drawing
from pixelwise.inference.output_names import result_names
from pixelwise.regions.areas import ClassArea, measure_areas
from pixelwise.regions.components import clean_labels
from pixelwise.regions.georeference import Georeference
from pixelwise.regions.polygons import BACKGROUND, ClassPolygon, background_index, find_polygons

REPR_CLASSES = 5  # number of classes shown in a repr


@dataclass(repr=False)
class Segmentation:
    """The class of every pixel of one image.

    Args:
        image: (H, W, C) in units of 0..255; uint8 for RGB images, as given.
        labels: (H, W) uint8 class indices, 0..C-1.
        classes: The classes that the indices stand for.
    """

    image: Pixels
    labels: NDArray[np.uint8]
    classes: Classes

    def __repr__(self) -> str:
        height, width = self.labels.shape
        most = ", ".join(self._legend_texts()[:REPR_CLASSES])
        return f"{type(self).__name__}({width}x{height} pixels: {most})"

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """(H, W) uint8 in the values of the mask files that the model was trained on."""
        return self.classes.to_value(self.labels)

    def class_fractions(self) -> dict[str, float]:
        """Return the fraction of the image (0..1) that each class covers.

        Returns:
            Fractions by class name, largest first, without absent classes.
        """
        counts = np.array(Image.fromarray(self.labels).histogram()[: len(self.classes)])
        order = np.argsort(-counts, kind="stable")
        return {
            self.classes.names[i]: float(counts[i] / self.labels.size) for i in order if counts[i]
        }

    def overlay(self, *, opacity: float = drawing.OPACITY, legend: bool = True) -> Image.Image:
        """Draw the classes' colors over the image.

        Args:
            opacity: 0 (image only) to 1 (colors only).
            legend: Add a legend with the class names below the image.
        """
        colors = self.classes.color_table().take(self.labels, axis=0)
        image = Image.fromarray(drawing.blend(as_shown(self.image), colors, opacity=opacity))
        if not legend:
            return image
        return drawing.stack(image, drawing.legend(self._legend_entries(), width=image.width))

    def clean(
        self, *, min_area: int = 0, fill_holes: bool = False, background: str = BACKGROUND
    ) -> Self:
        """Return the result with filled holes, and without small components.

        Args:
            min_area: Components with fewer pixels take the class of their longest border.
            fill_holes: Fill components of the background that a single class encloses, before.
            background: Name of the class that is the background.

        Raises:
            InputError: If `background` is needed and is not a class, or `min_area` is negative.
            MissingPackageError: If scipy is not installed.
        """
        holes_of = background_index(self.classes, background) if fill_holes else None
        return replace(self, labels=clean_labels(self.labels, min_area=min_area, holes_of=holes_of))

    def areas(self, *, pixel_area: float | None = None) -> list[ClassArea]:
        """Measure the area and the connected components of each class, also of absent ones.

        Args:
            pixel_area: Area of a pixel on the ground in square meters.

        Raises:
            MissingPackageError: If scipy is not installed.
        """
        return measure_areas(
            self.labels, self.classes, confidence=self._confidence(), pixel_area=pixel_area
        )

    def table(self, *, pixel_size: float | None = None) -> list[dict[str, Any]]:
        """Return `areas` as the rows of a table, by column name.

        Args:
            pixel_size: Side of a pixel on the ground in meters.

        Raises:
            MissingPackageError: If scipy is not installed.
        """
        pixel_area = None if pixel_size is None else pixel_size**2
        return [area.to_json() for area in self.areas(pixel_area=pixel_area)]

    def polygons(
        self,
        *,
        tolerance: float = 1.0,
        georeference: Georeference | None = None,
        names: Sequence[str] | None = None,
    ) -> list[ClassPolygon]:
        """Trace the outline of each connected component.

        Args:
            tolerance: Largest distance in pixels between an outline and the border.
            georeference: Where the image lies, from `pixelwise.regions.georeference`; None for
                coordinates in pixels.
            names: The classes to trace; None for all except `background`.

        Raises:
            InputError: If the tolerance is negative or a class does not exist.
            MissingPackageError: If scipy, rasterio or shapely is not installed.
        """
        return find_polygons(
            self.labels,
            self.classes,
            confidence=self._confidence(),
            tolerance=tolerance,
            georeference=georeference,
            names=names,
        )

    def _confidence(self) -> NDArray[np.float32] | None:
        return None

    def encode(self, *, overlay: bool = True) -> tuple[bytes, ...]:
        """Return PNG files: the mask with the classes' palette and, on request, the overlay."""
        mask = encode_palette(self.mask, self.classes.palette())
        return (mask, encode_rgb(np.asarray(self.overlay()))) if overlay else (mask,)

    def save(self, folder: Path, name: str, *, overlay: bool = True) -> tuple[Path, ...]:
        """Write NAME.png (palette mask) and NAME_overlay.png into `folder`, each atomically."""
        paths = tuple(folder / file for file in result_names(name, overlay=overlay))
        for path, data in zip(paths, self.encode(overlay=overlay), strict=True):
            with atomic(path) as side:
                side.write_bytes(data)
        return paths

    def _legend_entries(self) -> list[drawing.Entry]:
        color_of = dict(zip(self.classes.names, self.classes.colors, strict=True))
        return [
            (f"{name} {_percent(fraction)}", color_of[name])
            for name, fraction in self.class_fractions().items()
        ]

    def _legend_texts(self) -> list[str]:
        return [text for text, _ in self._legend_entries()]

    def _repr_html_(self) -> str:
        """Show the overlay in a notebook, with the legend as its description."""
        from pixelwise.pages import data_url

        alt = html.escape(", ".join(self._legend_texts()), quote=True)
        return f'<img alt="{alt}" title="{alt}" src="{data_url(self.overlay())}">'


@dataclass(repr=False)
class Prediction(Segmentation):
    """A segmentation with the confidence of the network.

    Args:
        logits: (C, H, W) float32 scores before the softmax. With a CRF or TTA, the logarithm of
            the resulting probabilities.
        temperature: Divides the logits before the softmax; 1 for a network that was not calibrated.
        lowest_familiarity: The least familiarity of ordinary images; None if it is not known.
    """

    logits: NDArray[np.float32]
    temperature: float = 1.0
    lowest_familiarity: float | None = None

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(C, H, W) float32 in 0..1, summing to one over the classes."""
        if self.temperature == 1:
            return softmax(self.logits)
        return softmax(self.logits / np.float32(self.temperature))

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """(H, W) float32 in 0..1: the probability of the label of each pixel."""
        index = self.labels[None].astype(np.intp)
        return np.asarray(np.take_along_axis(self.probabilities, index, axis=0)[0])

    def _confidence(self) -> NDArray[np.float32]:
        return self.confidence

    @property
    def flagged(self) -> bool | None:
        """Whether the image is unlike the data that the network was calibrated on.

        None if the network was not calibrated, or with a CRF or TTA, which hide its logits.
        """
        if self.lowest_familiarity is None:
            return None
        return familiarity(self.logits) < self.lowest_familiarity


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn logits (C, H, W) float32 into probabilities over the classes."""
    weights: NDArray[np.float32] = np.exp(logits - logits.max(axis=0, keepdims=True))
    weights /= weights.sum(axis=0, keepdims=True)
    return weights


def log_probabilities(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn probabilities into logits that the softmax turns back into them; 0 stays finite."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def familiarity(logits: NDArray[np.float32]) -> float:
    """Return the mean over the pixels of log(sum(exp(logits))).

    It is the negative energy of arXiv:2010.03759, and low for images unlike those of the training.
    """
    highest = logits.max(axis=0)
    return float((highest + np.log(np.exp(logits - highest).sum(axis=0))).mean())


def label_map(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the class index (H, W) with the highest score (C, H, W)."""
    index: NDArray[np.uint8] = scores.argmax(axis=0).astype(np.uint8)
    return index


def _percent(fraction: float) -> str:
    return f"{fraction:.0%}" if fraction >= 0.01 else "<1%"
