"""An image with the classes' colors over it, and what each color means below."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

OPACITY = 0.5
Entry = tuple[str, tuple[int, int, int]]
"""What the legend says of a class, and its color."""


def blend(
    image: NDArray[np.uint8], colors: NDArray[np.uint8], *, opacity: float = OPACITY
) -> NDArray[np.uint8]:
    """The two images (H, W, 3), mixed and rounded, halves to even.

    opacity: 0 (`image` only) to 1 (`colors` only).
    """
    if opacity == 0.5:  # the same numbers without floats, in a sixth of the time
        odd: NDArray[np.uint8] = image ^ colors
        mean: NDArray[np.uint8] = odd // 2
        mean += image & colors
        odd &= mean
        odd &= 1
        mean += odd
        return mean
    mixed = image * np.float32(1 - opacity) + colors * np.float32(opacity)
    return np.rint(mixed).astype(np.uint8)


def legend(entries: Sequence[Entry], *, width: int) -> Image.Image:
    """A white strip with a swatch and a text for each entry, wrapped to `width` pixels.

    It is wider than that where one entry alone is.
    """
    size = min(28, max(11, width // 45))
    gap, row = size // 2, size * 3 // 2
    parts = [_entry(text, color, size) for text, color in entries]
    width = max(width, *(part.width + 2 * gap - gap // 2 for part in parts))
    places, x, y = [], gap, gap
    for part in parts:
        if x > gap and x + part.width > width:
            x, y = gap, y + row
        places.append((x, y))
        x += part.width
    strip = Image.new("RGB", (width, y + row), "white")
    for part, place in zip(parts, places, strict=True):
        strip.paste(part, place)
    return strip


def below(picture: Image.Image, strip: Image.Image) -> Image.Image:
    """`image` with `strip` under it, on white where one is wider."""
    size = (max(picture.width, strip.width), picture.height + strip.height)
    out = Image.new("RGB", size, "white")
    out.paste(picture, (0, 0))
    out.paste(strip, (0, picture.height))
    return out


@lru_cache(maxsize=4096)  # the images of a folder share most of them
def _entry(text: str, color: tuple[int, int, int], size: int) -> Image.Image:
    """Swatch and text on white, with the gap to the next; `size`: of the letters, in pixels."""
    font = ImageFont.load_default(size=size)
    gap = size // 2
    start = size + gap // 2
    part = Image.new("RGB", (start + int(np.ceil(font.getlength(text))) + gap, size * 3 // 2 - 1))
    draw = ImageDraw.Draw(part)
    draw.rectangle((0, 0, *part.size), fill="white")
    draw.rectangle((0, 0, size, size), fill=color, outline=(90, 90, 90))
    draw.text((start, size / 2), text, fill="black", font=font, anchor="lm")
    return part
