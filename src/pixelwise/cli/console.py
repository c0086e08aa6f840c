"""How the commands speak: errors in one line each, tables, progress that shows time left."""

from __future__ import annotations

import functools
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from pixelwise.errors import InputError, PixelwiseError

MAX_PROBLEMS = 20
MAX_LINE = 4000
"""Characters of one of them."""

P = ParamSpec("P")
R = TypeVar("R")

# Names of files and classes are printed as they are: `[x]` is no style and `:car:` no image.
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
    problems = error.problems
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
    from pixelwise.file_io import check_writable

    if file not in {None, "-"}:
        check_writable(Path(str(file)))


def write_json(file: str | None, content: Mapping[str, Any], *, use: str = "") -> None:
    """What --json asks for: a file, which is said with its `use`; with - standard output; without
    it nothing."""
    from pixelwise.file_io import atomic

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


class Transfer:
    """A bar in bytes for each thing that is done to a file, with speed and time left."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.what = ""
        self.done = 0
        self.task: TaskID | None = None

    def __enter__(self) -> Transfer:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        stop(self.progress)

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """`done` of `total` bytes of `what`; another name, or less done, starts a new bar."""
        if self.task is None or what != self.what or done < self.done:
            if self.task is not None:
                self.progress.remove_task(self.task)
            # What an earlier call has fetched is there from the start: the speed is this one's.
            self.task = self.progress.add_task(what, total=total, completed=done)
        self.what, self.done = what, done
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


COLUMNS = {
    "iou": "IoU",
    "accuracy": "acc.",
    "precision": "prec.",
    "dice": "Dice",
    "boundary_f1": "border\nF1",
    "boundary_iou": "border\nIoU",
    "share": "share",
}
SUMMARY = {
    "mean_iou": "mean IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "mean_dice": "mean Dice",
    "mean_boundary_f1": "mean border F1",
    "mean_boundary_iou": "mean border IoU",
    "expected_calibration_error": "calibration error",
}


def show_scores(scores: Mapping[str, Any], *, title: str) -> None:
    """Print the table of the classes and the summary scores, in percent: what `scores`, which is
    `Evaluation.to_json` or `Scores.to_json`, has of COLUMNS and SUMMARY."""
    intervals = scores.get("intervals")
    rows: dict[str, Mapping[str, Any]] = scores["classes"]
    shown = {key: label for key, label in COLUMNS.items() if key in next(iter(rows.values()))}
    # With little between the columns all of them fit into 80 characters.
    table = Table(title=f"{title}, in %", title_justify="left", box=box.SIMPLE_HEAD)
    table.collapse_padding, table.pad_edge = True, False
    table.add_column("class", overflow="fold")
    for key, label in shown.items():
        table.add_column(label, justify="right", no_wrap=True)
        if key == "iou" and intervals is not None:
            level = f"in {100 * intervals['level']:.0f} %"
            table.add_column(level, justify="right", no_wrap=True)
    for name, row in rows.items():
        cells = [percent(row[key]) for key in shown]
        if intervals is not None:
            cells.insert(1, percents(intervals["classes"][name]["iou"]))
        table.add_row(name, *cells)
    console.print(table)
    summary = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "left"):
        summary.add_column(justify=justify)
    for key, label in SUMMARY.items():
        if key in scores:
            interval = percents((intervals or {}).get(key))
            summary.add_row(label, percent(scores[key]), interval)
    console.print(summary)


def percents(interval: Sequence[float | None] | None) -> str:
    """`62.1 to 70.0`, or nothing."""
    return "" if interval is None else " to ".join(percent(bound) for bound in interval)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def gigabytes(size: int | None) -> str:
    """`1.86 GiB`; `size not known` for None."""
    return "size not known" if size is None else f"{size / 2**30:.2f} GiB"


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
