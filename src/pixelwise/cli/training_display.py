"""Show the progress and the results of a run.

Commands import this module when they train, since it imports PyTorch.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pixelwise.cli.console import Bar, console, facts_table, percent, print_line, show_scores
from pixelwise.distributed.environment import read_distributed_env
from pixelwise.interrupts import Answer, ask_after_interrupt
from pixelwise.overwriting import check_output, html_mark
from pixelwise.process_settings import tune_allocator
from pixelwise.report import LivePage, write_run_report
from pixelwise.training import Callback, Run
from pixelwise.training.callbacks import CallbackList
from pixelwise.training.display import TrainingDisplay
from pixelwise.training.run_folder import REPORT


def run_with_display(work: Callable[[Callback], Run]) -> Run:
    """Train with a progress display, print the scores and write the report; rank 0 only."""
    tune_allocator()
    distributed_env = read_distributed_env()
    if distributed_env is not None and distributed_env.rank:
        return work(Callback())
    command = shlex.join(["pixelwise", *sys.argv[1:]])
    with PrintedDisplay() as display:
        page = LivePage(command=command, report_follows=True)
        run = work(CallbackList(display, page))
    assert run.evaluation is not None
    if run.ended_early:
        print_line(f"ended early  {run.ended_early}")
    scores = run.evaluation.to_json(run.data.classes.names)
    show_scores(scores, title=f"val, epoch {run.best_epoch} of {run.last_epoch}")
    with Bar("scoring for the report") as bar:

        def show(done: int, total: int) -> None:
            bar(done, total)
            if done == total:
                bar.describe("writing the report", unit="images")

        check_output(run.folder / REPORT, mark=html_mark("report"))
        report = write_run_report(run, command=command, progress=show)
    print_line(f"best bundle  {run.best}")
    print_line(f"report       {report}")
    print_line(f"use it       pixelwise predict {run.best} IMAGES --out predictions")
    return run


class PrintedDisplay(TrainingDisplay):
    """A display that also prints the plan and a line per epoch."""

    def __init__(self) -> None:
        super().__init__(console)
        self.best = -1.0

    def on_plan(self, facts: Mapping[str, str], *, epochs: int) -> None:
        super().on_plan(facts, epochs=epochs)
        console.print(facts_table(facts))

    def on_start(self, run: Run) -> None:
        print_line(f"watch it     {run.folder / REPORT}")

    def on_interrupt(self) -> Answer:
        self.bar.__exit__()  # it would overwrite the question
        answer = ask_after_interrupt()
        if answer == "finish":
            print_line("the run ends after this epoch")
        return answer

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        score = row["val_mean_iou"]
        mark = ""
        if score is not None and score > self.best:
            self.best, mark = score, "  best so far"
        console.print(
            f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['loss']:.3f}  "
            f"val mIoU {percent(score)} %  {row['seconds']:.0f} s, "
            f"{row['images_per_second']:.1f} images/s{mark}"
        )
        super().on_epoch_end(row)
