"""The command line: parsing and printing only. PyTorch is imported inside the commands."""

from __future__ import annotations

from typing import Annotated

import typer

import pixelwise
from pixelwise.cli import inference, training

app = typer.Typer(
    name="pixelwise",
    help="Semantic segmentation: train on your own pictures, check, predict.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for function in (
    training.train,
    inference.evaluate,
    inference.predict,
    training.demo,
    inference.models,
    training.recipe,
):
    app.command()(function)


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


def main() -> None:
    """The `pixelwise` command."""
    app()
