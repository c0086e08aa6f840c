"""`pixelwise label-errors`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Context, Option

from pixelwise.cli import flags, study
from pixelwise.cli.console import JsonOutput, command, console, make_table, print_line
from pixelwise.errors import InputError

if TYPE_CHECKING:
    from pixelwise.study.label_errors.find import LabelErrors


@command
def label_errors(
    ctx: Context,
    data: flags.Data,
    out: Annotated[Path, Option(help="Folder for the folds, the page and label_errors.json.")],
    folds: Annotated[
        int, Option(min=2, help="Number of parts; a network trains on the others of each.")
    ] = 4,
    run: Annotated[
        Path | None,
        Option(help="A run or a bundle: examine val with it, in place of training folds."),
    ] = None,
    group_by: flags.GroupBy = None,
    count: Annotated[int, Option(min=1, help="Number of findings on the page.")] = 200,
    suggest: Annotated[
        Path | None,
        Option(help="New folder for the images of these findings with corrected masks."),
    ] = None,
    recipe: flags.Recipe = None,
    epochs: study.Epochs = None,
    seed: study.Seed = None,
    device: study.Device = None,
    settings: study.Settings = None,
    images: flags.Images = None,
    masks: flags.Masks = None,
    json_file: flags.JsonFile = None,
    overwrite: Annotated[
        bool,
        Option("--overwrite", help="Replace any page and JSON file; folds are never replaced."),
    ] = False,
) -> None:
    """Find labels that are likely wrong: regions that a network contradicts which never saw them.

    Writes a page with image, label, prediction and region of the most suspicious ones, and their
    list as JSON. A folder of cross-validate has the folds already.
    """
    from pixelwise.process_settings import tune_allocator

    output = JsonOutput(json_file, "label-errors", overwrite=overwrite)
    if run is not None:
        _check_run(ctx, run)
    tune_allocator()
    from pixelwise.study.label_errors.find import find_label_errors

    loaded = study.load_study_recipe(ctx)
    with study.make_display(quiet=output.alone) as display:
        result = find_label_errors(
            data,
            out,
            loaded,
            folds=folds,
            run=run,
            count=count,
            suggest=suggest,
            overwrite=overwrite,
            callback=display,
        )
    if not output.alone:
        _show(result)
        if suggest is not None:
            print_line(f"corrected    {suggest}")
    output.write(result.to_json())


def _check_run(ctx: Context, run: Path) -> None:
    """Raise InputError for options of the folds, which a trained network does not need."""
    names = {"folds", "group_by", "recipe", "epochs", "seed", "device", "settings"}
    names |= {"images", "masks"}
    given = [flag for name, flag in flags.stated(ctx).items() if name in names]
    if given:
        raise InputError(f"--run {run}: is trained already: omit {', '.join(given)}")


def _show(result: LabelErrors) -> None:
    shown = Counter(finding.kind.value for finding in result.findings)
    certain = Counter(row["kind"] for row in result.to_json()["findings"] if row["certain"])
    table = make_table("regions that a network contradicts", ["kind"], ["found", "likely wrong"])
    for kind, count in shown.items():
        table.add_row(kind, str(count), str(certain[kind]))
    console.print(table)
    estimate = result.estimate
    console.print(
        f"likely wrong {estimate.count} regions (95 % interval {estimate.low:.0f} to "
        f"{estimate.high:.0f}) in {len(result.images)} images"
    )
    print_line(f"look at them {result.page}")
