"""What a prediction is: a mask, probabilities, and pictures of it."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixelwise.data.classes import Classes
from pixelwise.data.images import write_image, write_mask
from pixelwise.data.pixels import Pixels, as_shown

OVERLAY_OPACITY = 0.5


@dataclass
class Prediction:
    """The classes of every pixel of one image.

    image: (H, W, C) in units of 0..255; of RGB pictures uint8, as it was given.
    index: (H, W) uint8, class indices 0..C-1.
    logits: (C, H, W) float32, the scores before the softmax; after a CRF their softmax is its
        probabilities.
    """

    image: Pixels
    index: NDArray[np.uint8]
    classes: Classes
    logits: NDArray[np.float32] = field(repr=False)

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """(H, W) uint8 in the values of the mask files that the model was trained on."""
        return self.classes.to_value(self.index)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(C, H, W) float32 in 0..1, summing to one over the classes."""
        return softmax(self.logits)

    def shares(self) -> dict[str, float]:
        """The part of the image (0..1) that each class covers, largest first, absent ones out."""
        counts = np.bincount(self.index.reshape(-1), minlength=len(self.classes))
        order = np.argsort(-counts, kind="stable")
        return {
            self.classes.names[i]: float(counts[i] / self.index.size) for i in order if counts[i]
        }

    def overlay(self, *, opacity: float = OVERLAY_OPACITY, legend: bool = True) -> Image.Image:
        """The photograph with the classes' colours over it and, below, what each colour means.

        opacity: 0 (photograph only) to 1 (colours only).
        """
        colours = self.classes.colour_table()[self.index]
        blended = as_shown(self.image) * np.float32(1 - opacity) + colours * np.float32(opacity)
        picture = Image.fromarray(np.rint(blended).astype(np.uint8))
        return _with_legend(picture, self._legend_entries()) if legend else picture

    def save(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write NAME.png (palette mask) and NAME_overlay.png into `folder`; each atomically."""
        mask, overlay = folder / f"{name}.png", folder / f"{name}_overlay.png"
        write_image(overlay, self.overlay())
        write_mask(mask, self.mask, palette=self.classes.palette())
        return mask, overlay

    def _legend_entries(self) -> list[tuple[str, tuple[int, int, int]]]:
        colour_of = dict(zip(self.classes.names, self.classes.colours, strict=True))
        return [
            (f"{name} {_percent(share)}", colour_of[name]) for name, share in self.shares().items()
        ]

    def _repr_html_(self) -> str:
        """How a notebook shows it: the overlay, with the legend as its description."""
        buffer = io.BytesIO()
        self.overlay().save(buffer, format="PNG")
        text = ", ".join(f"{name} {_percent(share)}" for name, share in self.shares().items())
        data = base64.b64encode(buffer.getvalue()).decode()
        alt = html.escape(text, quote=True)
        return f'<img alt="{alt}" title="{alt}" src="data:image/png;base64,{data}">'


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, H, W) float32 logits to probabilities over the classes."""
    weights: NDArray[np.float32] = np.exp(logits - logits.max(axis=0, keepdims=True))
    weights /= weights.sum(axis=0, keepdims=True)
    return weights


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "<1%"


def _with_legend(
    picture: Image.Image, entries: list[tuple[str, tuple[int, int, int]]]
) -> Image.Image:
    """Add a white strip below with a swatch and a name for each entry, wrapped to the width."""
    size = min(28, max(11, picture.width // 45))
    font = ImageFont.load_default(size=size)
    gap, row = size // 2, size * 3 // 2
    width = max(picture.width, *(_length(font, t) + size + 3 * gap for t, _ in entries))
    places, x, y = [], gap, gap
    for text, colour in entries:
        needed = size + gap // 2 + _length(font, text) + gap
        if x > gap and x + needed > width:
            x, y = gap, y + row
        places.append((x, y, text, colour))
        x += needed
    out = Image.new("RGB", (width, picture.height + y + row), "white")
    out.paste(picture, (0, 0))
    draw = ImageDraw.Draw(out)
    for x, y, text, colour in places:
        top = picture.height + y
        draw.rectangle((x, top, x + size, top + size), fill=colour, outline=(90, 90, 90))
        draw.text((x + size + gap // 2, top + size / 2), text, fill="black", font=font, anchor="lm")
    return out


def _length(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return int(np.ceil(font.getlength(text)))
