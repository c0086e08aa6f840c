"""Render the HTML report of a training run: scores, curves, example images, recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import Classes
from pixelwise.evaluation.examples import Example
from pixelwise.pages import css_color, percent, write_page
from pixelwise.pages.html_page import NARROW_SPACE, known
from pixelwise.progress import duration
from pixelwise.report.charts import curves, reliability
from pixelwise.report.confusion_table import confusion_table
from pixelwise.report.example_images import STRIPES, WRONG, panels


@dataclass(frozen=True)
class Gallery:
    """Example images under a heading, with a sentence that explains them."""

    heading: str
    examples: Sequence[Example]
    text: str = ""


def write_report(
    path: Path,
    *,
    title: str,
    classes: Classes,
    history: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any] | None,
    confusion: NDArray[np.int64] | None,
    galleries: Sequence[Gallery],
    facts: Mapping[str, str],
    recipe: str,
    command: str,
    status: str = "",
    reload_seconds: int = 0,
) -> None:
    """Write the page, atomically.

    Args:
        path: The HTML file to write.
        title: Title of the page.
        classes: The class table.
        history: One mapping per epoch, with "epoch" (1, 2, ...), "loss", "learning_rate",
            "val_mean_iou" (0..1 or None), "seconds" and "images_per_second".
        scores: `Evaluation.to_json` or `Scores.to_json`. Scores it lacks are not on the page. None:
            there are none yet.
        confusion: (C, C) pixels by true and predicted class, or None.
        galleries: Example images, in the order to show them. Empty galleries are left out.
        facts: Other information about the run, by label.
        recipe: The recipe as TOML.
        command: The command that repeats the run, or an empty string.
        status: A line at the top, such as that the run was ended early.
        reload_seconds: The browser reloads the page after this time. 0: never.

    Raises:
        InputError: If the file cannot be written.
    """
    if scores is None:
        scores = NO_SCORES
    present = {key for row in scores["classes"].values() for key in row}
    write_page(
        path,
        package="pixelwise.report",
        title=title,
        summary=_summary(history),
        status=status,
        reload_seconds=reload_seconds,
        scores=scores,
        headlines=HEADLINES,
        format_interval=_format_interval,
        known=known,
        pixels=f"{scores['pixels']:,}".replace(",", NARROW_SPACE),
        intervals=scores.get("intervals"),
        charts=curves(history),
        columns=[(key, label) for key, label in COLUMNS if key in present],
        confusion=None if confusion is None else confusion_table(confusion, classes),
        reliability=reliability(scores.get("reliability", [])),
        galleries=galleries,
        panels=partial(panels, classes=classes),
        legend=[
            (name, css_color(color))
            for name, color in zip(classes.names, classes.colors, strict=True)
        ],
        wrong=css_color(WRONG),
        stripes=[css_color(gray) for gray in STRIPES],
        facts=facts,
        recipe=recipe,
        command=command,
    )


NO_SCORES: dict[str, Any] = {"classes": {}, "pixels": 0}
HEADLINES = (
    ("mean_iou", "Mean IoU", "intersection over union, averaged over the classes"),
    ("pixel_accuracy", "Pixel accuracy", "fraction of all pixels that are correct"),
    ("mean_accuracy", "Mean accuracy", "fraction of each class that is found, averaged"),
    ("frequency_weighted_iou", "Weighted IoU", "IoU, weighted by the pixels of each class"),
    ("mean_dice", "Mean Dice", "Dice score (pixel F1), averaged over the classes"),
    ("mean_boundary_f1", "Boundary F1", "boundary pixels matched within 0.75 % of the diagonal"),
    ("mean_boundary_iou", "Boundary IoU", "IoU within 2 % of the diagonal from boundaries"),
    ("expected_calibration_error", "Calibration error", "mean gap between confidence and accuracy"),
)
"""Scores at the top of the page: key, label and meaning."""
COLUMNS = (
    ("accuracy", "Accuracy"),
    ("precision", "Precision"),
    ("dice", "Dice"),
    ("boundary_f1", "Boundary F1"),
    ("boundary_iou", "Boundary IoU"),
    ("share", "Pixels"),
)
"""Columns of the class table after IoU."""


def _format_interval(interval: Sequence[float] | None) -> str:
    """Format as `62.1 to 70.0 %`, or as an empty string."""
    if interval is None:
        return ""
    return f"{100 * interval[0]:.1f} to {percent(interval[1])}"


def _summary(history: Sequence[Mapping[str, Any]]) -> str:
    """Describe the number of epochs, the time and the speed.

    An epoch without validation has no row: it is taken to last as long as the next one that has.
    """
    if not history:
        return ""
    numbers = [int(row["epoch"]) for row in history]
    lengths = np.diff(numbers, prepend=0)
    seconds = float(sum(n * float(row["seconds"]) for n, row in zip(lengths, history, strict=True)))
    speed = float(np.median([float(row["images_per_second"]) for row in history]))
    epochs = "1 epoch" if numbers[-1] == 1 else f"{numbers[-1]} epochs"
    return f"{epochs} in {duration(seconds)}, {speed:.3g} images per second"
