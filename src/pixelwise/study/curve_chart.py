"""Geometry of the charts of a learning curve, in units of the SVG viewBox."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT = 360.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 14.0, 12.0, 34.0


def draw_curve(
    *,
    points: Sequence[tuple[float, float]],
    line: Sequence[tuple[float, float]],
    band: Sequence[Sequence[float]],
    images: int,
) -> dict[str, Any]:
    """Return what the template needs to draw IoU over the number of images, on a log scale.

    Args:
        points: (images, IoU) of each training.
        line: (images, IoU) of the fitted curve.
        band: (low, high) at each point of the line.
        images: Number of images of the dataset; what is right of it is predicted.
    """
    values = [value for _, value in (*points, *line)] + [bound for pair in band for bound in pair]
    known = [value for value in values if math.isfinite(value)]
    step = next(s for s in (0.02, 0.05, 0.1, 0.2) if s == 0.2 or max(known) - min(known) <= 5 * s)
    low = max(0.0, math.floor(min(known) / step + 1e-9) * step)
    high = min(1.0, math.ceil(max(known) / step - 1e-9) * step)
    high = max(high, low + step)
    first, last = math.log(line[0][0]), math.log(line[-1][0])

    def across(number: float) -> float:
        fraction = (math.log(number) - first) / (last - first)
        return round(LEFT + fraction * (WIDTH - LEFT - RIGHT), 1)

    def down(value: float) -> float:
        fraction = (min(max(value, low), high) - low) / (high - low)
        return round(HEIGHT - BOTTOM - fraction * (HEIGHT - TOP - BOTTOM), 1)

    upper = [f"{across(x)},{down(pair[1])}" for (x, _), pair in zip(line, band, strict=True)]
    lower = [f"{across(x)},{down(pair[0])}" for (x, _), pair in zip(line, band, strict=True)]
    ticks = [low + i * step for i in range(round((high - low) / step) + 1)]
    sizes = sorted({round(x) for x, _ in points} | {images, 2 * images})
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "band": " ".join([*upper, *reversed(lower)]),
        "measured": " ".join(f"{across(x)},{down(y)}" for x, y in line if x <= images * 1.001),
        "predicted": " ".join(f"{across(x)},{down(y)}" for x, y in line if x >= images * 0.999),
        "points": [(across(x), down(y)) for x, y in points if math.isfinite(y)],
        "x_ticks": [(across(size), str(size)) for size in sizes],
        "y_ticks": [(down(tick), f"{100 * tick:.0f}") for tick in ticks],
        "now": across(images),
    }
