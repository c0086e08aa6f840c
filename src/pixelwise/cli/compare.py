"""`pixelwise compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from pixelwise.cli import flags
from pixelwise.cli.console import (
    JsonOutput,
    command,
    console,
    make_table,
    percent,
    percents,
    print_line,
)
from pixelwise.progress import duration

if TYPE_CHECKING:
    from pixelwise.report.run_comparison import Comparison


@command
def compare(
    runs: Annotated[
        list[Path], Argument(help="Run folders, or files of `pixelwise evaluate --image-scores`.")
    ],
    json_file: flags.JsonFile = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Compare two or more runs, and test whether they differ by more than chance."""
    from pixelwise.errors import InputError

    if len(runs) < 2:
        raise InputError(f"{runs[0]}: is the only run: give two or more runs to compare")
    output = JsonOutput(json_file, "compare", overwrite=overwrite)
    from pixelwise.report.run_comparison import compare as compare_runs

    comparison = compare_runs(runs)
    content = comparison.to_json()
    if not output.alone:
        _show(comparison, content)
    output.write(content)


def _show(comparison: Comparison, content: dict[str, Any]) -> None:
    runs = content["runs"]
    names = [f"{number}: {run['name']}" for number, run in enumerate(runs, start=1)]
    if content["recipe_differences"]:
        table = make_table("differences between the recipes", ["key"], names)
        for key, values in content["recipe_differences"].items():
            table.add_row(key, *("-" if value is None else str(value) for value in values))
        console.print(table)
    title = f"IoU in % on {content['split']} ({content['images']} images)"
    columns = [*names, *(f"{number} minus 1" for number in range(2, len(runs) + 1))]
    table = make_table(title, ["class"], columns)
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
        print_line(sentence)


def _format_change(difference: dict[str, Any], key: str) -> str:
    """Format a difference in percentage points as `+1.3 (0.4 to 2.1)`."""
    if difference[key] is None:
        return "-"
    change = f"{100 * difference[key]:+z.1f}".replace("+0.0", "0.0")
    return f"{change} ({percents(difference['interval'])})"
