"""One self-contained HTML page about a training run: scores, curves, pictures, how to repeat it.

The page asks nothing of the network: pictures are data URLs, curves are inline SVG, and a content
security policy in it forbids the rest. Every text is escaped by the template engine.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import IGNORE, Classes, Colour
from pixelwise.files import atomic

MAX_SIDE = 640
"""Pictures with a longer side, in pixels, are reduced to it: the page is small enough to mail."""

WRONG: Colour = (230, 0, 90)
"""The colour of wrong pixels in error maps: far from grey, and told apart without seeing red."""

STRIPES: tuple[Colour, Colour] = ((250, 250, 250), (190, 190, 190))
"""The two greys that hatch ignored pixels."""


@dataclass(frozen=True)
class Example:
    """One validation image, its truth and its prediction.

    name: file name. image: uint8 (H, W, 3), RGB. truth: uint8 (H, W), class indices 0..C-1, IGNORE
    for pixels left out. predicted: uint8 (H, W), class indices. score: the mIoU over the classes
    present in this image, 0..1.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    score: float


def write_report(
    path: Path,
    *,
    title: str,
    classes: Classes,
    history: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    best: Sequence[Example],
    worst: Sequence[Example],
    facts: Mapping[str, str],
    recipe: str,
    command: str,
) -> None:
    """Write the page to `path`, atomically: at no time does half a page stand there.

    history: one mapping an epoch, with "epoch" (1, 2, ...), "loss", "learning_rate",
        "val_mean_iou" (0..1 or None), "seconds" and "images_per_second".
    scores: "pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou" (0..1 or None),
        "pixels", and "classes": for each name "iou", "accuracy" (0..1 or None where the class is
        absent) and "share" (of the scored pixels, 0..1).
    best, worst: examples in the order in which they are shown.
    facts: what else there is to say about the run, by label. recipe: its TOML text.
    command: what repeats the run.

    Raises InputError where the file cannot be written.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    environment.filters["percent"] = _percent
    source = files("pixelwise.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        title=title,
        summary=_summary(history),
        headlines=_headlines(scores),
        pixels=f"{scores['pixels']:,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
        charts=_charts(history),
        rows=_class_rows(classes, scores["classes"]),
        galleries=[
            (name, [_panels(example, classes) for example in examples])
            for name, examples in (("Best predictions", best), ("Worst predictions", worst))
            if examples
        ],
        legend=[
            (name, _css(colour))
            for name, colour in zip(classes.names, classes.colours, strict=True)
        ],
        wrong=_css(WRONG),
        stripes=[_css(grey) for grey in STRIPES],
        facts=facts,
        recipe=recipe,
        command=command,
    )
    with atomic(path) as side:
        side.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files


def _css(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _known(value: Any) -> float | None:
    """A number that can be shown, or None: what is absent or not finite is a dash on the page."""
    return float(value) if value is not None and math.isfinite(value) else None


def _percent(value: Any) -> str:
    number = _known(value)
    if number is None:
        return "\N{EN DASH}"
    return f"{100 * number:.1f}\N{NARROW NO-BREAK SPACE}%"


def _summary(history: Sequence[Mapping[str, Any]]) -> str:
    """How long it took, in words."""
    if not history:
        return ""
    seconds = round(sum(float(row["seconds"]) for row in history))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        took = f"{hours} h {minutes} min"
    else:
        took = f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
    speed = float(np.median([float(row["images_per_second"]) for row in history]))
    epochs = "1 epoch" if len(history) == 1 else f"{len(history)} epochs"
    return f"{epochs} in {took}, {speed:.3g} images per second"


def _headlines(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    texts = {
        "mean_iou": ("Mean IoU", "overlap of prediction and truth, averaged over the classes"),
        "pixel_accuracy": ("Pixel accuracy", "share of the pixels with the right class"),
        "mean_accuracy": ("Mean accuracy", "share found of each class, averaged"),
        "frequency_weighted_iou": ("Weighted IoU", "IoU, each class by its share of the pixels"),
    }
    return [
        {"label": label, "value": scores[key], "meaning": meaning}
        for key, (label, meaning) in texts.items()
    ]


def _class_rows(classes: Classes, scores: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    absent: dict[str, Any] = {"iou": None, "accuracy": None, "share": None}
    rows = []
    for name, colour in zip(classes.names, classes.colours, strict=True):
        score = scores.get(name, absent)
        iou = _known(score["iou"])
        rows.append(
            {
                "name": name,
                "colour": _css(colour),
                "iou": iou,
                "width": None if iou is None else f"{100 * min(max(iou, 0.0), 1.0):.1f}%",
                "accuracy": score["accuracy"],
                "share": score["share"],
            }
        )
    return rows


# Curves. Lengths are in the units of the SVG's viewBox, about one CSS pixel each.

WIDTH, HEIGHT = 360.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 52.0, 14.0, 36.0


def _charts(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    charts = []
    for key, label, scale, from_zero in (
        ("loss", "Training loss", 1.0, True),
        ("val_mean_iou", "Validation mIoU, %", 100.0, False),  # as in the figures above
        ("learning_rate", "Learning rate", 1.0, True),
    ):
        values = [(int(row["epoch"]), _known(row.get(key))) for row in history]
        points = [(epoch, scale * value) for epoch, value in values if value is not None]
        if points:
            charts.append(_chart(label, points, from_zero=from_zero))
    return charts


def _chart(label: str, points: Sequence[tuple[int, float]], *, from_zero: bool) -> dict[str, Any]:
    """Everything that the template needs to draw one curve; `points` are (epoch, value)."""
    values = [value for _, value in points]
    ticks = _ticks(min(0.0, *values) if from_zero else min(values), max(values))
    low, high = ticks[0], ticks[-1]
    first, last = points[0][0], points[-1][0]
    epochs = _epoch_ticks(first, last)

    def across(epoch: float) -> float:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)

    def down(value: float) -> float:
        share = (value - low) / (high - low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 2)

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
    """Three digits, or two and the power of ten where zeros would fill the chart's margin."""
    if 0 < abs(value) < 0.001:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits}e{int(power)}"
    return f"{value:.3g}"


def _nice_step(span: float, parts: int) -> float:
    """A step of 1, 2 or 5 times a power of ten that cuts `span` into at most about `parts`."""
    rough = span / parts
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= rough * 0.999)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, two or more, from at or below `low` to at or above `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a constant: room above and below it
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    step = _nice_step(high - low, 5)
    begin, end = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    digits = max(0, -math.floor(math.log10(step)))  # so that 3 * 0.1 is 0.3
    return [round(number * step, digits) for number in range(begin, end + 1)]


def _epoch_ticks(first: int, last: int) -> list[int]:
    """Whole epochs to be named: the first, the last, and round ones with room between."""
    if last == first:
        return [first]
    step = max(1, round(_nice_step(last - first, 5)))
    between = range(step * (first // step + 1), last, step)
    return [first, *(e for e in between if min(e - first, last - e) >= step * 0.6), last]


# Pictures.


def _panels(example: Example, classes: Classes) -> dict[str, Any]:
    """An example's four pictures, each with its caption and its alternative text."""
    image, truth, predicted = _fitting(example)
    scored = example.truth != IGNORE
    wrong = float((example.predicted != example.truth)[scored].mean()) if scored.any() else None
    share = "no pixel is scored" if wrong is None else f"{_percent(wrong)} of the pixels are wrong"
    palette = classes.colour_table()
    pictures = (
        ("Image", "the photograph", _png(Image.fromarray(image))),
        ("Truth", "the true classes", _png(_indexed(truth, palette))),
        ("Prediction", "the predicted classes", _png(_indexed(predicted, palette))),
        ("Errors", share, _png(Image.fromarray(_error_map(image, truth, predicted)))),
    )
    return {
        "name": example.name,
        "score": example.score,
        "wrong": wrong,
        "height": image.shape[0],
        "width": image.shape[1],
        "pictures": [
            {"caption": caption, "alt": f"{example.name}: {text}", "source": source}
            for caption, text, source in pictures
        ],
    }


def _fitting(
    example: Example,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Image, truth and prediction, reduced where they are larger than MAX_SIDE."""
    height, width = example.truth.shape
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return example.image, example.truth, example.predicted
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(example.image).resize(size, Image.Resampling.BOX)
    truth, predicted = (
        np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        for mask in (example.truth, example.predicted)
    )
    return np.asarray(image), truth, predicted


def _error_map(
    image: NDArray[np.uint8], truth: NDArray[np.uint8], predicted: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """(H, W, 3): the image in pale grey, wrong pixels in WRONG, ignored ones hatched."""
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    shown = np.repeat((70 + grey * 0.62).astype(np.uint8)[..., None], 3, axis=2)
    ignored = truth == IGNORE
    shown[(predicted != truth) & ~ignored] = WRONG
    rows, columns = np.indices(truth.shape)
    stripe = (rows + columns) // 2 % 2 == 0
    shown[ignored & stripe], shown[ignored & ~stripe] = STRIPES
    return shown


def _indexed(mask: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(palette.tobytes())
    return image


def _png(image: Image.Image) -> str:
    """The picture as a data URL."""
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
