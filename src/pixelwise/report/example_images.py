"""Example predictions as images: input, true mask, predicted mask and error map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import IGNORE, Classes, Color
from pixelwise.evaluation.examples import Example, fit
from pixelwise.pages import data_url, percent

WRONG: Color = (230, 0, 90)
"""Color of wrong pixels in error maps. Color-blind readers can also tell it from gray."""

STRIPES: tuple[Color, Color] = ((250, 250, 250), (190, 190, 190))
"""The two grays that hatch ignored pixels."""


def panels(example: Example, classes: Classes) -> dict[str, Any]:
    """Return the four images of an example, each with its caption and alternative text."""
    scored = example.truth != IGNORE
    marked, words = (example.predicted != example.truth) & scored, "wrong"
    wrong = float(marked[scored].mean()) if scored.any() else None
    if example.confident_errors is not None:
        marked, words = example.confident_errors, "wrong with high confidence"
    summary = "no pixel is scored"
    if wrong is not None:
        summary = f"{percent(marked[scored].mean())} of the pixels are {words}"
    image = fit(example.image, Image.Resampling.BOX)
    truth, predicted, marks = (
        fit(mask, Image.Resampling.NEAREST)
        for mask in (example.truth, example.predicted, marked.astype(np.uint8))
    )
    palette = classes.color_table()
    images = (
        ("Image", "the image", image_source(image)),
        ("Ground truth", "the true classes", _png(_indexed(truth, palette))),
        ("Prediction", "the predicted classes", _png(_indexed(predicted, palette))),
        (words.capitalize(), summary, _png(Image.fromarray(_error_map(image, truth, marks)))),
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


def _error_map(
    image: NDArray[np.uint8], truth: NDArray[np.uint8], marks: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return (H, W, 3): the image in pale gray, marked pixels in WRONG, ignored ones hatched."""
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


def image_source(image: NDArray[np.uint8]) -> str:
    """Encode a photo (H, W, 3) as JPEG, which is several times smaller than PNG."""
    return data_url(Image.fromarray(image), kind="JPEG", quality=90, subsampling=0)


def mask_source(mask: NDArray[np.uint8], classes: Classes) -> str:
    """Encode a mask (H, W) of class indices in the colors of the classes."""
    return _png(_indexed(mask, classes.color_table()))


def _png(image: Image.Image) -> str:
    return data_url(image, optimize=True)
