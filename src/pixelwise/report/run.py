"""The page about a finished run: what it holds is gathered here, how it looks is `page`'s."""

from __future__ import annotations

import math
import platform
from datetime import date
from pathlib import Path

import pixelwise
from pixelwise.data.pixels import as_shown
from pixelwise.inference import Predictor
from pixelwise.report.page import Example, write_report
from pixelwise.training import Run

EXAMPLES = 3


def write_run_report(run: Run, *, command: str) -> Path:
    """Write RUN/report.html and return its path. `command` is what repeats the run."""
    assert run.evaluation is not None
    predictor = Predictor.load(run.best)
    scored = {
        name: score for name, score in run.evaluation.by_image.items() if not math.isnan(score)
    }
    ranked = sorted(scored, key=lambda name: scored[name], reverse=True)
    samples = {sample.name: sample for sample in run.data.splits["val"]}

    def example(name: str) -> Example:
        image, truth = run.data.read(samples[name])
        return Example(
            name=name,
            image=as_shown(image),
            truth=truth,
            predicted=predictor.classify(image),
            score=scored[name],
        )

    count = min(EXAMPLES, max(1, len(ranked) // 2))
    path = run.folder / "report.html"
    write_report(
        path,
        title=f"{run.recipe.model.name} on {run.data.root.resolve().name}",
        classes=run.data.classes,
        history=run.history,
        scores=run.evaluation.scores.to_json(run.data.classes.names),
        best=[example(name) for name in ranked[:count]],
        worst=[example(name) for name in reversed(ranked[count:][-count:])],
        facts={
            **run.facts,
            "best epoch": f"{run.best_epoch} of {run.recipe.epochs}, by val mIoU",
            "made by": f"pixelwise {pixelwise.__version__} on {platform.system()} "
            f"{platform.machine()}, {date.today().isoformat()}",
        },
        recipe=run.recipe.to_toml(),
        command=command,
    )
    return path
