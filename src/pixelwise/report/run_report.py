"""Collect the content of a finished run's HTML report. `report_page` renders it."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

import pixelwise
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.pixel_format import as_shown
from pixelwise.evaluation import Evaluation, evaluate
from pixelwise.evaluation.calibration import CONFIDENT, confident_errors
from pixelwise.evaluation.examples import Example
from pixelwise.inference import Predictor
from pixelwise.peak_memory import peak_memory
from pixelwise.progress import duration
from pixelwise.report.report_page import Gallery, write_report
from pixelwise.training import Run
from pixelwise.training.run_folder import REPORT

EXAMPLES = 3
"""Images in each gallery."""


def write_run_report(run: Run, *, command: str, progress: ProgressCallback | None = None) -> Path:
    """Write RUN/report.html.

    Scores the best bundle on val again, with boundaries and calibration.

    Args:
        run: A finished run.
        command: The command that repeats the run.
        progress: Called with (done, total) after each image.

    Returns:
        The path of the page.
    """
    predictor = Predictor.load(run.best)
    evaluation = evaluate(predictor, run.data, "val", details=True, progress=progress)
    path = run.folder / REPORT
    write_report(
        path,
        title=run_title(run),
        classes=run.data.classes,
        history=run.history,
        scores=evaluation.to_json(run.data.classes.names),
        confusion=evaluation.matrix.counts,
        galleries=_galleries(run, predictor, evaluation),
        facts={
            **run.facts,
            "best epoch": f"{run.best_epoch} of {run.last_epoch}, by validation mIoU",
            "ended early": run.ended_early,
            "time per epoch": _epoch_time(run.history),
            "peak memory": _memory(),
            "created by": f"pixelwise {pixelwise.__version__} on {platform.system()} "
            f"{platform.machine()}, {date.today().isoformat()}",
        },
        recipe=run.recipe.to_toml(),
        command=command,
        status=ending(run.ended_early),
    )
    return path


def run_title(run: Run) -> str:
    """Return the title of a run's page."""
    return f"{run.recipe.model.name} on {run.data.root.resolve().name}"


def ending(ended_early: str) -> str:
    """Return the line about a run that has ended early; empty if it has not."""
    return f"The run was ended early, {ended_early}." if ended_early else ""


def _galleries(run: Run, predictor: Predictor, evaluation: Evaluation) -> list[Gallery]:
    assert evaluation.details is not None
    by_image = evaluation.image_counts.mean_iou
    ranked = sorted(
        (name for name, score in by_image.items() if not math.isnan(score)),
        key=lambda name: by_image[name],
        reverse=True,
    )
    samples = {sample.name: sample for sample in run.data.splits["val"]}

    def examples(names: Sequence[str], *, confident: bool = False) -> list[Example]:
        return [example(name, confident=confident) for name in names]

    def example(name: str, *, confident: bool) -> Example:
        image, truth = run.data.read(samples[name])
        result = predictor.predict_prepared(image)
        confidence = result.probabilities.max(axis=0)
        errors = confident_errors(truth, result.labels, confidence) if confident else None
        return Example(name, as_shown(image), truth, result.labels, by_image[name], errors)

    best, median, worst = _best_median_worst(ranked)
    errors = evaluation.details.confident_errors
    misleading = sorted((n for n in errors if errors[n]), key=lambda n: errors[n], reverse=True)
    return [
        Gallery("Best predictions", examples(best)),
        Gallery("Median predictions", examples(median)),
        Gallery("Worst predictions", examples(worst)),
        Gallery(
            "Confident errors",
            examples(misleading[:EXAMPLES], confident=True),
            "The images with the most pixels that are wrong with a confidence of "
            f"{100 * CONFIDENT:.0f} % or more.",
        ),
    ]


def _best_median_worst(ranked: Sequence[str]) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Return the first, the middle and the last EXAMPLES, or fewer so that none appears twice."""
    count = min(EXAMPLES, max(1, len(ranked) // 2))
    best, rest = ranked[:count], ranked[count:]
    worst = rest[-count:]
    between = rest[: -count or None] if worst else rest
    middle = max(0, (len(between) - EXAMPLES) // 2)
    return best, between[middle : middle + EXAMPLES], worst[::-1]


def _epoch_time(history: Sequence[Mapping[str, Any]]) -> str:
    if not history:
        return ""
    training, validation = (
        statistics.median(float(row[key]) for row in history) for key in ("seconds", "val_seconds")
    )
    return f"{duration(training)} training, {duration(validation)} validation (medians)"


def _memory() -> str:
    """Return the peak memory of this process, and of its GPU."""
    peak = peak_memory()
    peaks = [] if peak is None else [f"{peak / 2**30:.1f} GiB"]
    if torch.cuda.is_available():
        peaks.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU")
    return ", ".join(peaks)
