"""Show the progress of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console

from pixelwise.progress import UNIT_COLUMN, Bar, Clock, duration
from pixelwise.training.callbacks import Callback


class Display(Callback):
    """A progress bar for the check of the dataset, and one for everything after it.

    Args:
        console: Where to draw. By default standard error.
        quiet: Whether to show nothing at all.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.dataset_bar = Bar("checking the data", console=console, quiet=quiet)
        self.bar = Bar("", unit="", console=console, quiet=quiet, columns=(UNIT_COLUMN,))
        self.clock = Clock()
        self.is_first_step = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.dataset_bar.__exit__()
        self.bar.__exit__()

    def on_dataset_progress(self, done: int, total: int) -> None:
        self.dataset_bar(done, total)


class TrainingDisplay(Display):
    """The progress of the steps and the validation of a run.

    For the arguments see `Display`.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        super().__init__(console, quiet=quiet)
        self.epochs = 0
        self.state = ""
        self.rate = self.loss = 0.0
        self.last_time = time.monotonic()

    def on_status(self, text: str) -> None:
        self.dataset_bar.__exit__()
        self.bar.describe(text, unit="")
        self.bar.progress.start()

    def on_plan(self, facts: Mapping[str, str], *, epochs: int) -> None:
        self.epochs = epochs
        self.on_status("starting")
        self.clock = Clock()
        self.last_time = time.monotonic()

    def on_validation_progress(self, done: int, total: int) -> None:
        self.bar.describe(f"val {done}/{total}", unit=self.state)

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
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
        left = duration(self.clock.left(done, total))
        self.state = f"loss {self.loss:.3f} {self.rate:.1f} images/s {left} left"
        self.bar.describe(f"epoch {epoch}/{self.epochs}", unit=self.state)
        self.bar(done, total)

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        self.last_time = time.monotonic()  # without the validation
