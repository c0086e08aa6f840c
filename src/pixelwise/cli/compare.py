"""`pixelwise compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pixelwise.cli.console import (
    check_json,
    command,
    console,
    duration,
    percent,
    percents,
    write_json,
)

if TYPE_CHECKING:
    from pixelwise.report.run_comparison import Comparison


@command
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders, or files of `pixelwise evaluate --images`."),
    ],
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="FILE", help="Also write JSON to FILE, or print only JSON with -."
        ),
    ] = None,
) -> None:
    """Compare two or more runs, and test whether they differ by more than chance."""
    from pixelwise.errors import InputError

    if len(runs) < 2:
        raise InputError(f"{runs[0]}: is the only run: give two or more runs to compare")
    check_json(json_file)
    from pixelwise.report.run_comparison import compare as compare_runs

    comparison = compare_runs(runs)
    content = comparison.to_json()
    if json_file != "-":
        _show(comparison, content)
    write_json(json_file, content)


def _show(comparison: Comparison, content: dict[str, Any]) -> None:
    runs = content["runs"]
    if content["recipe_differences"]:
        table = _table("differences between the recipes", "key", runs)
        for key, values in content["recipe_differences"].items():
            table.add_row(key, *("-" if value is None else str(value) for value in values))
        console.print(table)
    table = _table(f"IoU in % on {content['split']} ({content['images']} images)", "class", runs)
    for number in range(1, len(runs)):
        table.add_column(f"{number + 1} minus 1", justify="right")
    for name in runs[0]["classes"]:
        changes = [_format_change(each["classes"][name], "iou") for each in content["differences"]]
        table.add_row(name, *(percent(run["classes"][name]) for run in runs), *changes)
    table.add_section()
    changes = [_format_change(each, "mean_iou") for each in content["differences"]]
    table.add_row("mean IoU", *(percent(run["mean_iou"]) for run in runs), *changes)
    table.add_row("95 % interval", *(percents(run["interval"]) for run in runs))
    table.add_row("pixel accuracy", *(percent(run["pixel_accuracy"]) for run in runs))
    if any(run["seconds"] is not None for run in runs):
        epochs = [
            "-" if run["epochs"] is None else f"{run['best_epoch']} of {run['epochs']}"
            for run in runs
        ]
        times = ["-" if run["seconds"] is None else duration(run["seconds"]) for run in runs]
        table.add_row("best epoch", *epochs)
        table.add_row("training time", *times)
    console.print(table)
    for sentence in comparison.verdicts:
        console.print(sentence, soft_wrap=True)


def _table(title: str, first: str, runs: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for number, run in enumerate(runs, start=1):
        table.add_column(f"{number}: {run['name']}", justify="right", overflow="fold")
    return table


def _format_change(difference: dict[str, Any], key: str) -> str:
    """Format a difference in percentage points as `+1.3 (0.4 to 2.1)`."""
    if difference[key] is None:
        return "-"
    return f"{100 * difference[key]:+.1f} ({percents(difference['interval'])})"
