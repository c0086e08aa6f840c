"""Camera effects: void objects close to the lens, texture, blur, exposure and noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pixelwise.data.scenes.canvas import Canvas, smooth_noise
from pixelwise.data.scenes.scene_classes import (
    BUILDING,
    OVERSAMPLING,
    PAINTS,
    PAVEMENT,
    ROAD,
    ROWS,
    SKY,
    VEGETATION,
    VOID,
)

# Strength of the texture of each class: grain of single pixels, and blotches of a few pixels.
GRAIN = np.full(256, 0.02, dtype=np.float32)
GRAIN[[SKY, ROAD, PAVEMENT, VEGETATION]] = (0.004, 0.055, 0.04, 0.09)
BLOTCH = np.full(256, 0.02, dtype=np.float32)
BLOTCH[[SKY, ROAD, PAVEMENT, VEGETATION, BUILDING]] = (0.008, 0.03, 0.03, 0.09, 0.018)


def draw_smudge(canvas: Canvas) -> None:
    """Draw a drop on the lens: blurred in the image, void in the mask."""
    rng, unit = canvas.rng, canvas.unit
    x, y = float(rng.uniform(8, max(9.0, canvas.columns - 8))), float(rng.uniform(20, ROWS - 20))
    across, down = float(rng.uniform(4, 8)), float(rng.uniform(3.5, 6))
    bounds = ((x - across) * unit, (y - down) * unit, (x + across) * unit, (y + down) * unit)
    ImageDraw.Draw(canvas.mask).ellipse(bounds, fill=VOID)
    margin = 4 * unit
    left, upper = max(0, int(bounds[0] - margin)), max(0, int(bounds[1] - margin))
    right = min(canvas.size[0], int(bounds[2] + margin))
    lower = min(canvas.size[1], int(bounds[3] + margin))
    if right <= left or lower <= upper:  # a drop can be outside a narrow image
        return
    drop = Image.new("L", (right - left, lower - upper), 0)
    local = (bounds[0] - left, bounds[1] - upper, bounds[2] - left, bounds[3] - upper)
    ImageDraw.Draw(drop).ellipse(local, fill=255)
    blurred = canvas.image.crop((left, upper, right, lower)).filter(ImageFilter.BoxBlur(3 * unit))
    canvas.image.paste(blurred, (left, upper), mask=drop.filter(ImageFilter.BoxBlur(unit)))


def draw_hood(canvas: Canvas) -> None:
    """Draw the hood of the camera's own car: void, as in driving datasets."""
    paint = canvas.choose(PAINTS)
    middle, unit = canvas.columns * float(canvas.rng.uniform(0.45, 0.55)), canvas.unit
    rise = float(canvas.rng.uniform(6, 11))
    bottom = ROWS * unit * 1.1
    for inset, gain in ((0.0, 0.35), (1.2, 0.62), (4.0, 0.8)):
        half_width = canvas.columns * 0.56 - inset * 2
        rim = [
            ((middle + math.cos(t) * half_width) * unit, (ROWS - math.sin(t) * rise + inset) * unit)
            for t in np.linspace(0.0, math.pi, 24).tolist()
        ]
        hood = [(rim[0][0], bottom), *rim, (rim[-1][0], bottom)]
        canvas.fill(hood, canvas.shade(paint, 0.0, gain), VOID)


def render_image(canvas: Canvas) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Downsample to the final size and add texture, blur, color cast and noise to the image.

    The mask is sampled at pixel centers, never interpolated.

    Returns:
        The image (H, W, 3) and the mask (H, W).
    """
    rng = canvas.rng
    center = OVERSAMPLING // 2
    mask = np.asarray(canvas.mask)[center::OVERSAMPLING, center::OVERSAMPLING].copy()
    height, width = mask.shape
    small = canvas.image.reduce(OVERSAMPLING)
    small = small.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 0.55)) * height / ROWS))
    texture = 1.0 + GRAIN[mask] * rng.standard_normal((height, width), dtype=np.float32)
    texture += BLOTCH[mask] * smooth_noise(rng, height, width, cells=34.0)
    down = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    across = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    texture *= 1.0 - float(rng.uniform(0.0, 0.09)) * (down**2 + across**2)  # vignette
    texture *= float(rng.uniform(0.86, 1.14))  # exposure
    cast = rng.normal(1.0, 0.035, 3).astype(np.float32)
    pixels = np.asarray(small, dtype=np.float32) * texture[..., None] * cast
    noise = float(rng.uniform(1.0, 4.5))
    pixels += noise * rng.standard_normal(pixels.shape, dtype=np.float32)
    contrast = float(rng.uniform(0.9, 1.1))
    pixels = (pixels - 118.0) * contrast + 118.0
    image: NDArray[np.uint8] = np.clip(pixels + 0.5, 0, 255).astype(np.uint8)
    return image, mask
