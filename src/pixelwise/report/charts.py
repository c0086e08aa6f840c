"""Geometry of the SVG charts, in units of the viewBox, about one CSS pixel each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pixelwise.pages.html_page import known

WIDTH, HEIGHT = 360.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 52.0, 14.0, 36.0


def curves(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return charts of loss, mIoU and learning rate by epoch, for the values that were measured."""
    charts = []
    for key, label, scale, from_zero in (
        ("loss", "Training loss", 1.0, True),
        ("val_mean_iou", "Validation mIoU, %", 100.0, False),  # as in the report's other scores
        ("learning_rate", "Learning rate", 1.0, True),
    ):
        values = [(int(row["epoch"]), known(row.get(key))) for row in history]
        points = [(epoch, scale * value) for epoch, value in values if value is not None]
        if points:
            charts.append(_chart(label, points, from_zero=from_zero))
    return charts


def _chart(label: str, points: Sequence[tuple[int, float]], *, from_zero: bool) -> dict[str, Any]:
    """Return everything the template needs to draw one curve through (epoch, value) points."""
    values = [value for _, value in points]
    ticks = _ticks(min(0.0, *values) if from_zero else min(values), max(values))
    low, high = ticks[0], ticks[-1]
    first, last = points[0][0], points[-1][0]
    epochs = _epoch_ticks(first, last)

    def across(epoch: float) -> float:
        fraction = (epoch - first) / (last - first) if last > first else 0.5
        return round(LEFT + fraction * (WIDTH - LEFT - RIGHT), 2)

    def down(value: float) -> float:
        fraction = (value - low) / (high - low)
        return round(HEIGHT - BOTTOM - fraction * (HEIGHT - TOP - BOTTOM), 2)

    ends = f"{_short(values[0])} in epoch {first}"
    if last > first:
        ends += f", {_short(values[-1])} in epoch {last}"
    return {
        "label": label,
        "description": f"{label}: {ends}",
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "y_ticks": [(down(tick), f"{tick:g}") for tick in ticks],
        "x_ticks": [(across(epoch), str(epoch)) for epoch in epochs],
        "line": " ".join(f"{across(epoch)},{down(value)}" for epoch, value in points),
        "end": (across(last), down(values[-1]), _short(values[-1])),
    }


def _short(value: float) -> str:
    """Format with three digits, or with an exponent if zeros would fill the chart's margin."""
    if 0 < abs(value) < 0.001:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits}e{int(power)}"
    return f"{value:.3g}"


def _nice_step(span: float, count: int) -> float:
    """Return 1, 2 or 5 times a power of ten, so that about `count` steps or fewer fill `span`."""
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= rough * 0.999)


def _ticks(low: float, high: float) -> list[float]:
    """Return two or more round numbers that cover `low` to `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a constant: leave room above and below
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    step = _nice_step(high - low, 5)
    begin, end = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    digits = max(0, -math.floor(math.log10(step)))  # turns 3 * 0.1 into 0.3
    return [round(number * step, digits) for number in range(begin, end + 1)]


def _epoch_ticks(first: int, last: int) -> list[int]:
    """Return the epochs to label: the first, the last, and round ones with room between them."""
    if last == first:
        return [first]
    step = max(1, round(_nice_step(last - first, 5)))
    between = range(step * (first // step + 1), last, step)
    return [first, *(e for e in between if min(e - first, last - e) >= step * 0.6), last]


SIDE = 260.0
"""Side of the square reliability diagram."""


def reliability(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return a bar for each bin of `Calibration.to_json` with pixels, or None if all are empty."""
    total = sum(row["pixels"] for row in rows)
    if not total:
        return None
    inner = SIDE - LEFT - BOTTOM / 2

    def across(fraction: float) -> float:
        return round(LEFT + fraction * inner, 2)

    def down(fraction: float) -> float:
        return round(SIDE - BOTTOM - fraction * inner, 2)

    bars = [
        {
            "x": across(row["from"]),
            "width": round(across(row["to"]) - across(row["from"]) - 1, 2),
            "y": down(row["accuracy"]),
            "height": round(down(0) - down(row["accuracy"]), 2),
            "dot": (across(row["confidence"]), down(row["accuracy"])),
            # Bins with few pixels are pale because they contribute little to the error.
            "opacity": round(0.25 + 0.75 * min(1.0, 5 * row["pixels"] / total), 2),
        }
        for row in rows
        if row["pixels"]
    ]
    fullest = max(rows, key=lambda row: row["pixels"])
    return {
        "side": SIDE,
        "bars": bars,
        "diagonal": (across(0), down(0), across(1), down(1)),
        "x_ticks": [(across(tick), f"{100 * tick:g}") for tick in (0, 0.5, 1)],
        "y_ticks": [(down(tick), f"{100 * tick:g}") for tick in (0, 0.5, 1)],
        "left": LEFT,
        "bottom": down(0),
        "fullest": fullest,
        "share": fullest["pixels"] / total,
    }
