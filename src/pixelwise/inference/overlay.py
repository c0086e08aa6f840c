"""Drawing: class colors over an image, with a legend below."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

OPACITY = 0.5
Entry = tuple[str, tuple[int, int, int]]
"""The text and the color of a class in the legend."""


def blend(
    image: NDArray[np.uint8], colors: NDArray[np.uint8], *, opacity: float = OPACITY
) -> NDArray[np.uint8]:
    """Mix two images (H, W, 3), rounding halves to even.

    Args:
        image: The image.
        colors: The color of each pixel's class.
        opacity: 0 (`image` only) to 1 (`colors` only).
    """
    if opacity == 0.5:  # the same result without floats, in a sixth of the time
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
    """Draw a white strip with a swatch and a text for each entry, wrapped to `width` pixels.

    The strip is wider than `width` if a single entry is.
    """
    size = min(28, max(11, width // 45))
    gap, row = size // 2, size * 3 // 2
    drawn = [_entry(text, color, size) for text, color in entries]
    width = max(width, *(entry.width + 2 * gap - gap // 2 for entry in drawn))
    positions, x, y = [], gap, gap
    for entry in drawn:
        if x > gap and x + entry.width > width:
            x, y = gap, y + row
        positions.append((x, y))
        x += entry.width
    strip = Image.new("RGB", (width, y + row), "white")
    for entry, position in zip(drawn, positions, strict=True):
        strip.paste(entry, position)
    return strip


def stack(image: Image.Image, strip: Image.Image) -> Image.Image:
    """Put `strip` below `image`, on white where one is wider than the other."""
    size = (max(image.width, strip.width), image.height + strip.height)
    out = Image.new("RGB", size, "white")
    out.paste(image, (0, 0))
    out.paste(strip, (0, image.height))
    return out


@lru_cache(maxsize=4096)  # the images of a folder have most entries in common
def _entry(text: str, color: tuple[int, int, int], size: int) -> Image.Image:
    """Draw swatch and text on white, with the gap to the next entry; `size`: font size."""
    font = ImageFont.load_default(size=size)
    gap = size // 2
    start = size + gap // 2
    entry = Image.new("RGB", (start + int(np.ceil(font.getlength(text))) + gap, size * 3 // 2 - 1))
    draw = ImageDraw.Draw(entry)
    draw.rectangle((0, 0, *entry.size), fill="white")
    draw.rectangle((0, 0, size, size), fill=color, outline=(90, 90, 90))
    draw.text((start, size / 2), text, fill="black", font=font, anchor="lm")
    return entry
