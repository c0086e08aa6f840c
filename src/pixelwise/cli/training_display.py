"""Show the progress and the results of a run.

Commands import this module when they train, since it imports PyTorch.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pixelwise.cli.console import (
    Bar,
    Clock,
    console,
    duration,
    facts_table,
    percent,
    show_scores,
    stop,
)
from pixelwise.distributed.process_rank import find_process_rank
from pixelwise.process_settings import tune_allocator
from pixelwise.report import write_run_report
from pixelwise.training import Callback, Run


def run_with_display(work: Callable[[Callback], Run]) -> Run:
    """Train with a progress display, print the scores and write the report; rank 0 only."""
    memory = tune_allocator()
    process_rank = find_process_rank()
    if process_rank is not None and process_rank.rank:
        return work(Callback())
    with TrainingDisplay(memory or "") as display:
        run = work(display)
    assert run.evaluation is not None
    scores = run.evaluation.to_json(run.data.classes.names)
    show_scores(scores, title=f"val, epoch {run.best_epoch} of {display.epochs}")
    with Bar("scoring for the report") as bar:
        command = shlex.join(["pixelwise", *sys.argv[1:]])
        report = write_run_report(run, command=command, progress=bar)
    console.print(f"best bundle  {run.best}", soft_wrap=True)
    console.print(f"report       {report}", soft_wrap=True)
    usage = f"pixelwise predict {run.best} IMAGES --out predictions"
    console.print(f"use it       {usage}", soft_wrap=True)
    return run


class TrainingDisplay(Callback):
    """A progress bar for the dataset check, one for the steps, and a line per epoch.

    Args:
        memory: A line about memory settings for the plan.
    """

    def __init__(self, memory: str) -> None:
        self.memory = memory
        self.epochs = 0
        self.dataset_bar = Bar("checking the data")
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]} images/s"),
            TextColumn("{task.fields[left]} left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task: TaskID | None = None
        self.clock = Clock()
        self.best = -1.0
        self.rate = self.loss = 0.0
        self.is_first_step = True
        self.last_time = time.monotonic()

    def __enter__(self) -> TrainingDisplay:
        self.dataset_bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.dataset_bar.__exit__()
        stop(self.bar)

    def on_dataset_progress(self, done: int, total: int) -> None:
        self.dataset_bar(done, total)

    def on_plan(self, facts: Mapping[str, str], *, epochs: int) -> None:
        self.epochs = epochs
        self.dataset_bar.__exit__()
        console.print(facts_table({**facts, "memory": self.memory}))
        self.task = self.bar.add_task("", total=None, loss="-", rate="-", left="?")
        self.bar.start()
        self.clock = Clock()
        self.last_time = time.monotonic()

    def on_validation_progress(self, done: int, total: int) -> None:
        if self.task is not None:
            self.bar.update(self.task, description=f"val {done}/{total}")

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        assert self.task is not None
        now = time.monotonic()
        rate = images / max(1e-9, now - self.last_time)
        self.last_time = now
        # Smoothed to be readable; metrics.jsonl has the raw values.
        is_first, self.is_first_step = self.is_first_step, False
        self.rate = rate if is_first or step == 1 else 0.8 * self.rate + 0.2 * rate
        self.loss = loss if is_first else 0.9 * self.loss + 0.1 * loss
        done, total = (epoch - 1) * steps + step, self.epochs * steps
        if is_first:  # the steps before a resumed run took none of this clock's time
            self.clock.before = done - 1
        self.bar.update(
            self.task,
            total=total,
            completed=done,
            description=f"epoch {epoch}/{self.epochs}",
            loss=f"{self.loss:.3f}",
            rate=f"{self.rate:.1f}",
            left=duration(self.clock.left(done, total)),
        )

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
        self.last_time = time.monotonic()
