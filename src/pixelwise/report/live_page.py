"""The page of a run that is active: its curves, its scores and six val images after each epoch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pixelwise.evaluation.examples import Example
from pixelwise.overwriting import check_output, html_mark
from pixelwise.progress import duration
from pixelwise.report.report_page import Gallery, write_report
from pixelwise.report.run_report import ending, run_title
from pixelwise.training import Callback, Run
from pixelwise.training.run_folder import REPORT

RELOAD_SECONDS = 20


class LivePage(Callback):
    """Writes RUN/report.html at the start and after each epoch. It reloads itself in the browser.

    Args:
        command: The command that repeats the run; empty if it was started from Python.
        report_follows: Whether the report of the finished run will replace the page.
    """

    def __init__(self, *, command: str = "", report_follows: bool = False) -> None:
        self.command, self.report_follows = command, report_follows
        self.run: Run | None = None
        self.gallery: list[Gallery] = []

    def on_start(self, run: Run) -> None:
        check_output(run.folder / REPORT, mark=html_mark("report"))
        self.run = run
        self._write_active()

    def on_examples(self, epoch: int, examples: Sequence[Example]) -> None:
        text = "The same images after each epoch."
        self.gallery = [Gallery(f"Validation images after epoch {epoch}", examples, text)]

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        self._write_active()

    def on_stop(self, reason: str) -> None:
        self._write(f"The run has {reason.replace('`', '')}.")

    def on_end(self, ended_early: str) -> None:
        state = ending(ended_early) or "The run has ended."
        if self.report_follows:
            self._write(f"{state} Its report is being written.", reload=True)
        else:
            self._write(state)

    def _write_active(self) -> None:
        assert self.run is not None
        done, epochs = self.run.last_epoch, self.run.recipe.epochs
        status = f"Training: {done} of {epochs} epochs are done"
        if done:
            every = self.run.recipe.validate_every
            seconds = (row["seconds"] + row["val_seconds"] / every for row in self.run.history)
            status += f", about {duration((epochs - done) * statistics.median(seconds))} left"
            status += f". The scores are those of epoch {self.run.best_epoch}, the best so far"
        now = datetime.now().strftime("%H:%M:%S")
        self._write(f"{status}. Written at {now}; this page reloads itself.", reload=True)

    def _write(self, status: str, *, reload: bool = False) -> None:
        run = self.run
        if run is None:  # stopped before its first step
            return
        evaluation = run.evaluation
        best = f"{run.best_epoch} of {run.last_epoch}, by validation mIoU"
        write_report(
            run.folder / REPORT,
            title=run_title(run),
            classes=run.data.classes,
            history=run.history,
            scores=None if evaluation is None else evaluation.to_json(run.data.classes.names),
            confusion=None,
            galleries=self.gallery,
            facts={**run.facts, "best epoch": best if run.best_epoch else ""},
            recipe=run.recipe.to_toml(),
            command=self.command,
            status=status,
            reload_seconds=RELOAD_SECONDS if reload else 0,
        )
