"""Progress bars with the time left, for the command line, scripts and notebooks."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

UNIT_COLUMN = TextColumn("{task.fields[unit]}", markup=False)


class Bar:
    """A progress bar that is called with (done, total), as `progress` arguments expect.

    Use it as a context manager. It shows nothing if the output is neither a terminal nor a
    notebook.

    Args:
        description: Text before the bar.
        unit: What is counted.
        console: Where to draw. By default standard error.
        quiet: Whether to show nothing at all.
        columns: What to show after the bar, in place of the count, the unit and the time left.
    """

    def __init__(
        self,
        description: str,
        *,
        unit: str = "images",
        console: Console | None = None,
        quiet: bool = False,
        columns: Sequence[ProgressColumn] | None = None,
    ) -> None:
        console = console or Console(stderr=True)
        if columns is None:
            columns = (MofNCompleteColumn(), UNIT_COLUMN, TimeRemainingColumn())
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *columns,
            console=console,
            transient=True,
            disable=quiet or not (console.is_terminal or console.is_jupyter),
        )
        self.task = self.progress.add_task(description, total=None, unit=unit)
        self.total: int | None = None

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        stop(self.progress)

    def __call__(self, done: int, total: int) -> None:
        self.progress.start()
        if total != self.total:
            # Work that an earlier run finished must not count as speed.
            self.progress.reset(self.task, total=total, completed=max(0, done - 1))
            self.total = total
        self.progress.update(self.task, completed=done)

    def describe(self, description: str, *, unit: str) -> None:
        """Replace the text before the bar and the unit."""
        self.progress.update(self.task, description=description, unit=unit)


def stop(progress: Progress) -> None:
    """Stop a bar. rich prints an empty line when it stops a disabled one."""
    if not progress.disable:
        progress.stop()


class Clock:
    """Estimate the time left of a job from the fraction that is done.

    Args:
        done: Work that was finished before the clock started.
    """

    def __init__(self, done: float = 0) -> None:
        self.started = time.monotonic()
        self.before = done

    def left(self, done: float, total: float) -> float:
        """Return the seconds left, or infinity if nothing is done yet."""
        if done <= self.before:
            return math.inf
        return (time.monotonic() - self.started) / (done - self.before) * (total - done)


def duration(seconds: float) -> str:
    """Format a duration as `42 s`, `3:05 min` or `2:10 h`."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
