"""`pixelwise cross-validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Context, Option

from pixelwise.cli import flags, study
from pixelwise.cli.console import (
    JsonOutput,
    command,
    console,
    make_table,
    percent,
    print_line,
    show_scores,
)

if TYPE_CHECKING:
    from pixelwise.study.cross_validate import CrossValidation


@command
def cross_validate(
    ctx: Context,
    data: flags.Data,
    out: Annotated[Path, Option(help="Folder for the folds; existing folds continue.")],
    folds: Annotated[int, Option(min=2, help="Number of parts, each of which is val once.")] = 5,
    group_by: flags.GroupBy = None,
    recipe: flags.Recipe = None,
    epochs: study.Epochs = None,
    seed: study.Seed = None,
    device: study.Device = None,
    settings: study.Settings = None,
    images: flags.Images = None,
    masks: flags.Masks = None,
    json_file: flags.JsonFile = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace any file at --json; folds are never replaced.")
    ] = False,
) -> None:
    """Score every image with a network that has not seen it, nor any image of its group."""
    from pixelwise.process_settings import tune_allocator

    output = JsonOutput(json_file, "cross-validate", overwrite=overwrite)
    tune_allocator()
    from pixelwise.study.cross_validate import cross_validate as run

    loaded = study.load_study_recipe(ctx)
    with study.make_display(quiet=output.alone) as display:
        result = run(data, out, loaded, folds=folds, callback=display)
    if not output.alone:
        _show(result)
        print_line(f"the runs     {out}")
    output.write(result.to_json())


def _show(result: CrossValidation) -> None:
    content = result.to_json()
    units = content["intervals"]["over"]
    table = make_table(
        "folds", ["fold"], ["images", *(["groups"] if result.grouped else []), "mIoU %"]
    )
    for row in content["folds"]:
        counts = [str(row["images"]), *([str(row["groups"])] if result.grouped else [])]
        table.add_row(str(row["fold"]), *counts, percent(row["mean_iou"]))
    console.print(table)
    number = content["intervals"][units]
    show_scores(content, title=f"all folds; intervals over {number} {units}")
