"""How the commands speak: errors in one line each, tables, progress that shows time left."""

from __future__ import annotations

import functools
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pixelwise.errors import InputError, PixelwiseError

MAX_PROBLEMS = 20
MAX_LINE = 4000
"""Characters of one of them."""

P = ParamSpec("P")
R = TypeVar("R")

# Names of files and classes are printed as they are: `[x]` is no style and `:car:` no picture.
console = Console(highlight=False, markup=False, emoji=False)


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turn what a person can mend into lines on stderr and an exit code.

    2: bad input, a line for each fault. 1: it could not be finished. 130: Ctrl-C, 143: SIGTERM.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            complain(error)
            raise SystemExit(2) from None
        except PixelwiseError as error:
            complain(error)
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            print("pixelwise: stopped by Ctrl-C; what was finished is kept", file=sys.stderr)
            raise SystemExit(130) from None
        except BrokenPipeError:  # the reader of a pipe, as `head`, has seen enough
            sys.stderr.close()
            raise SystemExit(141) from None

    return guarded


def complain(error: PixelwiseError) -> None:
    """Print a line for each fault, control characters in file names made visible."""
    problems = error.problems if isinstance(error, InputError) else (str(error),)
    for problem in problems[:MAX_PROBLEMS]:
        if len(problem) > MAX_LINE:  # what a file holds instead of a name
            problem = f"{problem[: MAX_LINE // 2]} ... {problem[-MAX_LINE // 2 :]}"
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in problem)
        print(f"pixelwise: error: {text}", file=sys.stderr)
    if len(problems) > MAX_PROBLEMS:
        print(
            f"pixelwise: error: and {len(problems) - MAX_PROBLEMS} more faults like these",
            file=sys.stderr,
        )


def check_json(file: str | None) -> None:
    """Raise InputError now where `write_json` could not write later."""
    from pixelwise.files import check_writable

    if file not in {None, "-"}:
        check_writable(Path(str(file)))


def write_json(file: str | None, content: Mapping[str, Any], *, use: str = "") -> None:
    """What --json asks for: a file, which is said with its `use`; with - standard output; without
    it nothing."""
    from pixelwise.files import atomic

    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    if file == "-":
        print(text, end="")
    elif file is not None:
        with atomic(Path(file)) as side:
            side.write_text(text, encoding="utf-8")
        console.print(f"written to {file}{use}", soft_wrap=True)


def counting(description: str, *, unit: str = "images") -> Progress:
    """A bar with a count and the time left; draws nothing where output is not a terminal."""
    return Progress(
        TextColumn(description),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class Bar:
    """A `counting` bar as a callback of (done, total), for the library's `progress` arguments."""

    def __init__(self, description: str, *, unit: str = "images") -> None:
        self.progress = counting(description, unit=unit)
        self.task = self.progress.add_task("", total=None)

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        stop(self.progress)

    def __call__(self, done: int, total: int) -> None:
        self.progress.update(self.task, completed=done, total=total)


def stop(progress: Progress) -> None:
    """End a bar, once or again; rich prints an empty line for one that was never drawn."""
    if not progress.disable:
        progress.stop()


def facts_table(facts: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    for key, value in facts.items():
        if value:
            table.add_row(key, value)
    return table


def scores_table(scores: Mapping[str, Any], *, title: str) -> Table:
    """The per-class table with the four summary scores below, in percent."""
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    for name in ("IoU %", "accuracy %", "pixels %"):
        table.add_column(name, justify="right")
    for name, row in scores["classes"].items():
        table.add_row(name, percent(row["iou"]), percent(row["accuracy"]), percent(row["share"]))
    table.add_section()
    for label, key in (
        ("mean IoU", "mean_iou"),
        ("mean accuracy", "mean_accuracy"),
        ("pixel accuracy", "pixel_accuracy"),
        ("frequency-weighted IoU", "frequency_weighted_iou"),
    ):
        table.add_row(label, percent(scores[key]), "", "")
    return table


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def duration(seconds: float) -> str:
    """`42 s`, `3:05 min`, `2:10 h`."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


class Clock:
    """Time left of a job of known length, from the share that is done.

    done: what was done before the clock was started.
    """

    def __init__(self, done: float = 0) -> None:
        self.started = time.monotonic()
        self.before = done

    def left(self, done: float, total: float) -> float:
        if done <= self.before:
            return math.inf
        return (time.monotonic() - self.started) / (done - self.before) * (total - done)
