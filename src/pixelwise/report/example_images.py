"""Predictions as images: image, truth, prediction, and where it is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import IGNORE, Classes, Color
from pixelwise.pages import data_url, percent

MAX_SIDE = 640
"""Images with a longer side, in pixels, are reduced to it: the page is small enough to mail."""

WRONG: Color = (230, 0, 90)
"""The color of wrong pixels in error maps: far from gray, and told apart without seeing red."""

STRIPES: tuple[Color, Color] = ((250, 250, 250), (190, 190, 190))
"""The two grays that hatch ignored pixels."""


@dataclass(frozen=True)
class Example:
    """One validation image, its truth and its prediction.

    name: file name. image: uint8 (H, W, 3), RGB. truth: uint8 (H, W), class indices 0..C-1, IGNORE
    for pixels left out. predicted: uint8 (H, W), class indices. score: the mIoU over the classes
    present in this image, 0..1. misleading: bool (H, W), wrong pixels that the network was sure of,
    to be shown in place of all wrong ones.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    score: float
    misleading: NDArray[np.bool_] | None = None


def panels(example: Example, classes: Classes) -> dict[str, Any]:
    """An example's four images, each with its caption and its alternative text."""
    scored = example.truth != IGNORE
    marked, words = (example.predicted != example.truth) & scored, "wrong"
    wrong = float(marked[scored].mean()) if scored.any() else None
    if example.misleading is not None:
        marked, words = example.misleading, "wrong and sure"
    share = "no pixel is scored"
    if wrong is not None:
        share = f"{percent(marked[scored].mean())} of the pixels are {words}"
    image = _fit(example.image, Image.Resampling.BOX)
    truth, predicted, marks = (
        _fit(mask, Image.Resampling.NEAREST)
        for mask in (example.truth, example.predicted, marked.astype(np.uint8))
    )
    palette = classes.color_table()
    images = (
        ("Image", "the image", _jpeg(Image.fromarray(image))),
        ("Truth", "the true classes", _png(_indexed(truth, palette))),
        ("Prediction", "the predicted classes", _png(_indexed(predicted, palette))),
        (words.capitalize(), share, _png(Image.fromarray(_error_map(image, truth, marks)))),
    )
    return {
        "name": example.name,
        "score": example.score,
        "wrong": wrong,
        "height": image.shape[0],
        "width": image.shape[1],
        "images": [
            {"caption": caption, "alt": f"{example.name}: {text}", "source": source}
            for caption, text, source in images
        ],
    }


def _fit(pixels: NDArray[np.uint8], resampling: Image.Resampling) -> NDArray[np.uint8]:
    """Reduced where a side is longer than MAX_SIDE."""
    height, width = pixels.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


def _error_map(
    image: NDArray[np.uint8], truth: NDArray[np.uint8], marks: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """(H, W, 3): the image in pale gray, marked pixels in WRONG, ignored ones hatched."""
    gray = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    shown = np.repeat((70 + gray * 0.62).astype(np.uint8)[..., None], 3, axis=2)
    ignored = truth == IGNORE
    shown[(marks > 0) & ~ignored] = WRONG
    rows, columns = np.indices(truth.shape)
    stripe = (rows + columns) // 2 % 2 == 0
    shown[ignored & stripe], shown[ignored & ~stripe] = STRIPES
    return shown


def _indexed(mask: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(palette.tobytes())
    return image


def _jpeg(image: Image.Image) -> str:
    """For images, which are several times as large as PNG."""
    return data_url(image, kind="JPEG", quality=90, subsampling=0)


def _png(image: Image.Image) -> str:
    return data_url(image, optimize=True)
