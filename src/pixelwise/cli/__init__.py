"""The command line. Commands parse and print only, and import PyTorch when they run."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import pixelwise
from pixelwise.cli import (
    benchmark,
    calibrate,
    compare,
    convert,
    cross_validate,
    data,
    demo,
    doctor,
    evaluate,
    export,
    finish,
    label_errors,
    learning_curve,
    models,
    predict,
    recipe,
    select,
    serve,
    shards,
    sweep,
    train,
    tune_bias,
    tune_crf,
    weights,
)
from pixelwise.cli.console import complain
from pixelwise.cli.standard_streams import standard_streams
from pixelwise.errors import InputError
from pixelwise.process_settings import limit_omp_spin, limit_threads

app = typer.Typer(
    name="pixelwise",
    help="Train, check and ship semantic segmentation networks on your own images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for function in (
    doctor.doctor,
    train.train,
    finish.finish,
    sweep.sweep,
    evaluate.evaluate,
    calibrate.calibrate,
    tune_bias.tune_bias,
    compare.compare,
    learning_curve.learning_curve,
    select.select,
    cross_validate.cross_validate,
    label_errors.label_errors,
    predict.predict,
    shards.merge,
    tune_crf.tune_crf,
    demo.demo,
    models.models,
    convert.convert,
    export.export,
    serve.serve,
    benchmark.benchmark,
    data.convert_data,
    recipe.recipe,
):
    app.command()(function)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")


def _print_version(requested: bool) -> None:
    if requested:
        print(f"pixelwise {pixelwise.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


# The location of this class depends on typer's version, but all versions export BadParameter.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the `pixelwise` command."""
    limit_omp_spin()
    limit_threads()
    with standard_streams():
        try:
            code = app(prog_name="pixelwise", standalone_mode=False)
        except _UsageError as error:
            _report_usage_error(error)
            code = 2
        sys.exit(code if isinstance(code, int) else 0)


def _report_usage_error(error: Any) -> None:
    """Print one line, or nothing if the help was shown because there were no arguments."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return
    message = " ".join(error.format_message().split()).rstrip(".")
    command = error.ctx.command_path if error.ctx else "pixelwise"
    see = " See" if message.endswith("?") else ": see"
    complain(InputError(f"{message}{see} `{command} --help`"))
