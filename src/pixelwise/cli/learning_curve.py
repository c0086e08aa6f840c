"""`pixelwise learning-curve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Context, Option

from pixelwise.cli import flags, study
from pixelwise.cli.console import JsonOutput, command, console, print_line
from pixelwise.errors import InputError, check_training_packages


@command
def learning_curve(
    ctx: Context,
    data: flags.Data,
    out: Annotated[Path, Option(help="Folder for the study; an existing study continues.")] = Path(
        "learning-curve"
    ),
    fractions: Annotated[
        str, Option(metavar="F,F,...", help="Fractions of the training images.")
    ] = "0.125,0.25,0.5,1",
    seeds: Annotated[int, Option(min=1, help="Trainings for each fraction.")] = 3,
    minutes: Annotated[
        float, Option(help="Time budget; the same command continues with more.")
    ] = 60.0,
    steps: Annotated[
        int | None,
        Option(min=1, help="Steps of each training.", show_default="as many as fit the budget"),
    ] = None,
    recipe: flags.Recipe = None,
    settings: study.Settings = None,
    images: flags.Images = None,
    masks: flags.Masks = None,
    json_file: flags.JsonFile = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace any file at --json; a study is never replaced.")
    ] = False,
) -> None:
    """Find out whether more images would help: train on parts of them and extrapolate.

    Trains on nested subsets that contain every class, with equal numbers of steps, and fits
    error = a n^-b + c for each class.
    """
    output = JsonOutput(json_file, "learning-curve", overwrite=overwrite)
    check_training_packages()
    from pixelwise.process_settings import tune_allocator

    tune_allocator()
    from pixelwise.study.learning_curve import learning_curve as run_study
    from pixelwise.study.study_display import StudyDisplay

    loaded = study.load_study_recipe(ctx)
    with StudyDisplay(console, quiet=output.alone, lines=True) as display:
        result = run_study(
            data,
            out,
            loaded,
            fractions=_parse_fractions(fractions),
            seeds=seeds,
            minutes=minutes,
            steps=steps,
            callback=display,
        )
    if not output.alone:
        for line in (*result.summary, *result.caveats):
            print_line(line)
        print_line(f"page         {result.page}")
    output.write(result.to_json())


def _parse_fractions(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"--fractions {text}: give numbers separated by commas, such as 0.125,0.25,0.5,1"
        ) from error
