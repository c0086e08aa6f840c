"""What a prediction is: a mask, probabilities, and images of it."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import Pixels, as_shown
from pixelwise.data.png_encoding import encode_palette, encode_rgb
from pixelwise.file_io import atomic
from pixelwise.inference import overlay as drawing


@dataclass
class Segmentation:
    """The classes of every pixel of one image.

    image: (H, W, C) in units of 0..255; of RGB images uint8, as it was given.
    index: (H, W) uint8, class indices 0..C-1.
    """

    image: Pixels
    index: NDArray[np.uint8]
    classes: Classes

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """(H, W) uint8 in the values of the mask files that the model was trained on."""
        return self.classes.to_value(self.index)

    def shares(self) -> dict[str, float]:
        """The part of the image (0..1) that each class covers, largest first, absent ones out."""
        counts = np.array(Image.fromarray(self.index).histogram()[: len(self.classes)])
        order = np.argsort(-counts, kind="stable")
        return {
            self.classes.names[i]: float(counts[i] / self.index.size) for i in order if counts[i]
        }

    def overlay(self, *, opacity: float = drawing.OPACITY, legend: bool = True) -> Image.Image:
        """The image with the classes' colors over it and, below, what each color means.

        opacity: 0 (image only) to 1 (colors only).
        """
        colors = self.classes.color_table().take(self.index, axis=0)
        picture = Image.fromarray(drawing.blend(as_shown(self.image), colors, opacity=opacity))
        if not legend:
            return picture
        return drawing.below(picture, drawing.legend(self._legend_entries(), width=picture.width))

    def encoded(self, *, overlay: bool = True) -> tuple[bytes, ...]:
        """PNG files: the mask, with the classes' colors as its palette; the overlay if wanted."""
        mask = encode_palette(self.mask, self.classes.palette())
        return (mask, encode_rgb(np.asarray(self.overlay()))) if overlay else (mask,)

    def save(self, folder: Path, name: str, *, overlay: bool = True) -> tuple[Path, ...]:
        """Write NAME.png (palette mask) and NAME_overlay.png into `folder`; each atomically."""
        paths = tuple(folder / file for file in result_names(name, overlay=overlay))
        for path, data in zip(paths, self.encoded(overlay=overlay), strict=True):
            with atomic(path) as side:
                side.write_bytes(data)
        return paths

    def _legend_entries(self) -> list[drawing.Entry]:
        color_of = dict(zip(self.classes.names, self.classes.colors, strict=True))
        return [
            (f"{name} {_percent(share)}", color_of[name]) for name, share in self.shares().items()
        ]

    def _repr_html_(self) -> str:
        """How a notebook shows it: the overlay, with the legend as its description."""
        buffer = io.BytesIO()
        self.overlay().save(buffer, format="PNG")
        text = ", ".join(f"{name} {_percent(share)}" for name, share in self.shares().items())
        data = base64.b64encode(buffer.getvalue()).decode()
        alt = html.escape(text, quote=True)
        return f'<img alt="{alt}" title="{alt}" src="data:image/png;base64,{data}">'


@dataclass
class Prediction(Segmentation):
    """With it, how sure the network is.

    logits: (C, H, W) float32, the scores before the softmax; after a CRF their softmax is its
        probabilities.
    """

    logits: NDArray[np.float32] = field(repr=False)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(C, H, W) float32 in 0..1, summing to one over the classes."""
        return softmax(self.logits)


def result_names(name: str, *, overlay: bool = True) -> tuple[str, ...]:
    """The names of the files that `Segmentation.save` writes, in the order of `encoded`."""
    return (f"{name}.png", f"{name}_overlay.png") if overlay else (f"{name}.png",)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, H, W) float32 logits to probabilities over the classes."""
    weights: NDArray[np.float32] = np.exp(logits - logits.max(axis=0, keepdims=True))
    weights /= weights.sum(axis=0, keepdims=True)
    return weights


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "<1%"
