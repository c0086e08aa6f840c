"""The command line: parsing and printing only. PyTorch is imported inside the commands."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import pixelwise
from pixelwise.cli import (
    benchmark,
    compare,
    convert,
    data,
    demo,
    doctor,
    evaluate,
    export,
    models,
    predict,
    recipe,
    sweep,
    train,
    tune_crf,
)
from pixelwise.cli.console import complain
from pixelwise.errors import InputError
from pixelwise.process_settings import limit_omp_spin

app = typer.Typer(
    name="pixelwise",
    help="Semantic segmentation: train on your own images, check, predict.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for function in (
    doctor.doctor,
    train.train,
    sweep.sweep,
    evaluate.evaluate,
    compare.compare,
    predict.predict,
    tune_crf.tune_crf,
    demo.demo,
    models.models,
    convert.convert,
    export.export,
    benchmark.benchmark,
    data.convert_data,
    recipe.recipe,
):
    app.command()(function)
app.add_typer(data.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pixelwise {pixelwise.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


# Where typer keeps this class depends on its version; BadParameter is exported by all of them.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> None:
    """The `pixelwise` command."""
    limit_omp_spin()
    try:
        code = app(prog_name="pixelwise", standalone_mode=False)
    except _UsageError as error:
        _complain_of_usage(error)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _complain_of_usage(error: Any) -> None:
    """One line, as for every other error; nothing where no arguments have brought up the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return
    message = " ".join(error.format_message().split()).rstrip(".")
    command = error.ctx.command_path if error.ctx else "pixelwise"
    complain(InputError(f"{message}: see `{command} --help`"))
