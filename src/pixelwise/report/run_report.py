"""The page about a finished run: what it holds is gathered here, how it looks is `page`'s."""

from __future__ import annotations

import math
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

import pixelwise
from pixelwise.data.pixel_format import as_shown
from pixelwise.evaluation import Evaluation, evaluate
from pixelwise.evaluation.calibration import SURE, sure_and_wrong
from pixelwise.inference import Predictor
from pixelwise.report.example_images import Example
from pixelwise.report.report_page import Gallery, write_report
from pixelwise.training import Run

EXAMPLES = 3


def write_run_report(
    run: Run, *, command: str, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write RUN/report.html and return its path. `command` is what repeats the run.

    The best bundle is scored on val once more, with the details that epochs go without; progress:
    called with (done, total) after each image.
    """
    predictor = Predictor.load(run.best)
    evaluation = evaluate(predictor, run.data, "val", details=True, progress=progress)
    path = run.folder / "report.html"
    write_report(
        path,
        title=f"{run.recipe.model.name} on {run.data.root.resolve().name}",
        classes=run.data.classes,
        history=run.history,
        scores=evaluation.to_json(run.data.classes.names),
        confusion=evaluation.matrix.counts,
        galleries=_galleries(run, predictor, evaluation),
        facts={
            **run.facts,
            "best epoch": f"{run.best_epoch} of {run.recipe.epochs}, by val mIoU",
            "time": _time(run.history),
            "peak memory": _memory(),
            "made by": f"pixelwise {pixelwise.__version__} on {platform.system()} "
            f"{platform.machine()}, {date.today().isoformat()}",
        },
        recipe=run.recipe.to_toml(),
        command=command,
    )
    return path


def _galleries(run: Run, predictor: Predictor, evaluation: Evaluation) -> list[Gallery]:
    assert evaluation.details is not None
    by_image = evaluation.tallies.mean_iou
    ranked = sorted(
        (name for name, score in by_image.items() if not math.isnan(score)),
        key=lambda name: by_image[name],
        reverse=True,
    )
    samples = {sample.name: sample for sample in run.data.splits["val"]}

    def examples(names: Sequence[str], *, sure: bool = False) -> list[Example]:
        return [example(name, sure=sure) for name in names]

    def example(name: str, *, sure: bool) -> Example:
        image, truth = run.data.read(samples[name])
        result = predictor.predict_prepared(image)
        confidence = result.probabilities.max(axis=0)
        misleading = sure_and_wrong(truth, result.index, confidence) if sure else None
        return Example(name, as_shown(image), truth, result.index, by_image[name], misleading)

    best, median, worst = _ends_and_middle(ranked)
    wrong = evaluation.details.sure_and_wrong
    misled = sorted((name for name in wrong if wrong[name]), key=lambda n: wrong[n], reverse=True)
    return [
        Gallery("Best predictions", examples(best)),
        Gallery("Median predictions", examples(median)),
        Gallery("Worst predictions", examples(worst)),
        Gallery(
            "Where confidence misleads",
            examples(misled[:EXAMPLES], sure=True),
            "The images with the most pixels that are wrong though the network gave their class "
            f"{100 * SURE:.0f} % or more.",
        ),
    ]


def _ends_and_middle(ranked: Sequence[str]) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """The first, the middle and the last EXAMPLES, or fewer: none of them twice."""
    count = min(EXAMPLES, max(1, len(ranked) // 2))
    best, rest = ranked[:count], ranked[count:]
    worst = rest[-count:]
    between = rest[: -count or None] if worst else rest
    middle = max(0, (len(between) - EXAMPLES) // 2)
    return best, between[middle : middle + EXAMPLES], worst[::-1]


def _time(history: Sequence[Mapping[str, Any]]) -> str:
    if not history:
        return ""
    training, checking = (
        statistics.median(float(row[key]) for row in history) for key in ("seconds", "val_seconds")
    )
    return f"an epoch {training:.0f} s, and {checking:.0f} s to score val (medians)"


def _memory() -> str:
    """The most that this process has held, and the GPU for it."""
    parts = []
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        parts.append(f"{held / 2**30:.1f} GiB")
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU")
    return ", ".join(parts)
