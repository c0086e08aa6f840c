"""Output of the commands: one line per error, tables, progress bars, JSON files."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from rich import box
from rich.console import Console
from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from pixelwise import progress
from pixelwise.errors import PixelwiseError, collapse, explain_missing_packages
from pixelwise.interrupts import StoppedError

MAX_PROBLEMS = 20
MAX_LINE = 4000
"""Longest problem that is printed whole, in characters."""

P = ParamSpec("P")
R = TypeVar("R")

# Print names of files and classes literally: `[x]` is not a style and `:car:` not an emoji.
console = Console(highlight=False, markup=False, emoji=False)


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turn errors that the user can fix into lines on standard error and an exit code.

    Exit codes: 2 for bad input, 1 for work that could not be finished, 130 for Ctrl-C and 143 for
    SIGTERM.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with explain_missing_packages():
                return function(*args, **kwargs)
        except PixelwiseError as error:
            complain(error)
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            print("pixelwise: stopped by Ctrl-C; finished work is kept", file=sys.stderr)
            raise SystemExit(130) from None
        except OSError as error:
            complain(_describe(error))
            raise SystemExit(1) from None

    return guarded


def _describe(error: OSError) -> PixelwiseError:
    """Return the error for a file that the system cannot read or write."""
    if "temporary directory" in str(error):  # raised by tempfile
        return PixelwiseError(
            f"{error.strerror}: set the variable TMPDIR to a folder that can be written"
        )
    path = f"{error.filename}: " if error.filename else ""
    return PixelwiseError(
        f"{path}{error.strerror or error}: check the path, its permissions and the free disk "
        "space, and run the command again"
    )


def complain(error: PixelwiseError) -> None:
    """Print one line per problem, with control characters in file names made visible."""
    problems = collapse(error.problems)
    prefix = "pixelwise:" if isinstance(error, StoppedError) else "pixelwise: error:"
    for problem in problems[:MAX_PROBLEMS]:
        if len(problem) > MAX_LINE:  # for example the content of a file in place of a name
            problem = f"{problem[: MAX_LINE // 2]} ... {problem[-MAX_LINE // 2 :]}"
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in problem)
        print(f"{prefix} {text}", file=sys.stderr)
    if len(problems) > MAX_PROBLEMS:
        print(
            f"pixelwise: error: and {len(problems) - MAX_PROBLEMS} more problems like these",
            file=sys.stderr,
        )


class JsonOutput:
    """What --json asks for. A file that the command did not write is replaced only on request.

    Args:
        file: A file name, "-" for standard output, or None to write nothing.
        command: The name of the command.
        overwrite: Whether to replace any file.

    Raises:
        InputError: If a later `write` would fail.
    """

    def __init__(self, file: str | None, command: str, *, overwrite: bool) -> None:
        self.file, self.command, self.overwrite = file, command, overwrite
        self._check()

    @property
    def alone(self) -> bool:
        """Whether standard output is for JSON only."""
        return self.file == "-"

    def write(self, content: Mapping[str, Any], *, use: str = "") -> None:
        """Write JSON values; `use` says what the file is for and is printed after its name."""
        from pixelwise.file_io import write_text

        if self.alone:
            print(json.dumps(content, indent=1, allow_nan=False))
        elif self.file is not None:
            self._check()  # it may have appeared meanwhile
            marked = {"written_by": f"pixelwise {self.command}", **content}
            write_text(Path(self.file), json.dumps(marked, indent=1, allow_nan=False) + "\n")
            print_line(f"written to {self.file}{use}")

    def _check(self) -> None:
        from pixelwise.overwriting import check_output, json_mark

        if self.file is not None and not self.alone:
            check_output(Path(self.file), mark=json_mark(self.command), overwrite=self.overwrite)


Bar = functools.partial(progress.Bar, console=console)
"""A progress bar on the console of the commands."""


class Transfer(progress.Bar):
    """One progress bar in bytes after another, with speed and time left, for file transfers."""

    def __init__(self) -> None:
        columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        super().__init__("", columns=columns, console=console)
        self.state = ("", 0)

    def show(self, description: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` bytes are transferred.

        A new description, or a smaller `done`, starts a new bar.
        """
        if description != self.state[0] or done < self.state[1]:
            # Bytes that an earlier call fetched must not count as speed.
            self.progress.reset(self.task, description=description, total=total, completed=done)
        self.state = description, done
        self.progress.update(self.task, completed=done, total=total)


def print_line(text: str | Text) -> None:
    """Print text without breaking its lines, so that a path can be copied."""
    console.print(text, soft_wrap=True)


def make_table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """Return an empty table with columns of text, and then right-aligned ones of numbers."""
    table = Table(title=title, title_justify="left")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", overflow="fold")
    return table


def facts_table(facts: Mapping[str, str]) -> Table:
    """Return a table of labels and values, without the empty values."""
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
    "boundary_f1": "boundary\nF1",
    "boundary_iou": "boundary\nIoU",
    "share": "share",
}
SUMMARY = {
    "mean_iou": "mean IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "mean_dice": "mean Dice",
    "mean_boundary_f1": "mean boundary F1",
    "mean_boundary_iou": "mean boundary IoU",
    "expected_calibration_error": "calibration error",
}


def show_scores(scores: Mapping[str, Any], *, title: str) -> None:
    """Print a table of the classes and the summary scores, in percent.

    Args:
        scores: `Evaluation.to_json` or `Scores.to_json`.
        title: Title of the table.
    """
    intervals = scores.get("intervals")
    rows: dict[str, Mapping[str, Any]] = scores["classes"]
    columns = {key: label for key, label in COLUMNS.items() if key in next(iter(rows.values()))}
    # Narrow padding makes all columns fit into 80 characters.
    table = Table(title=f"{title}, in %", title_justify="left", box=box.SIMPLE_HEAD)
    table.collapse_padding, table.pad_edge = True, False
    table.add_column("class", overflow="fold")
    for key, label in columns.items():
        table.add_column(label, justify="right", no_wrap=True)
        if key == "iou" and intervals is not None:
            level = f"{100 * intervals['level']:.0f} % interval"
            table.add_column(level, justify="right", no_wrap=True)
    for name, row in rows.items():
        cells = [percent(row[key]) for key in columns]
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
    """Format an interval as `62.1 to 70.0`, or as an empty string if it is None."""
    return "" if interval is None else " to ".join(percent(bound) for bound in interval)


def percent(value: float | None) -> str:
    """Format a fraction as `76.5`, or as a dash if it is None."""
    return "-" if value is None else f"{100 * value:z.1f}"


def gigabytes(size: int | None) -> str:
    """Format a size as `1.86 GiB`."""
    return "size unknown" if size is None else f"{size / 2**30:.2f} GiB"
