"""The images of the page of a selection: the image, and where the network is in doubt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise.data.pixel_format import as_shown
from pixelwise.inference import Predictor
from pixelwise.pages.html_page import data_url
from pixelwise.study.pool_measures import entropy

SIDE = 360
"""Largest side of an image on the page, in pixels."""
HEAT = np.array([255, 60, 0], dtype=np.float32)


def draw_choice(predictor: Predictor, path: Path) -> tuple[str, str]:
    """Return data URLs of an image, and of the same in gray with the doubt in red."""
    pixels = predictor.prepare(path)
    doubt = entropy(predictor.predict_prepared(pixels).probabilities)
    image = Image.fromarray(as_shown(pixels))
    image.thumbnail((SIDE, SIDE))
    heat = np.asarray(Image.fromarray(doubt).resize(image.size, Image.Resampling.BOX))[..., None]
    gray = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    mixed = Image.fromarray((gray * (1 - heat) + HEAT * heat).clip(0, 255).astype(np.uint8))
    return tuple(data_url(each, kind="JPEG", quality=80) for each in (image, mixed))  # type: ignore[return-value]
