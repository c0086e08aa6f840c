"""`pixelwise convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pixelwise.cli.console import command, console, facts_table, print_line


@command
def convert(
    file: Annotated[Path, Argument(help="A .caffemodel, a .pth, or a TensorFlow checkpoint.")],
    model: Annotated[str, Option(help="The network to fill; `pixelwise models` lists them all.")],
    out: Annotated[Path, Option(help="The bundle to write.", metavar="BUNDLE")],
    classes: Annotated[
        Path | None, Option(help="A classes.toml with the names of the file's classes, in order.")
    ] = None,
    settings: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Set an option of the network.")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the file at --out.")] = False,
) -> None:
    """Convert published weights to a bundle."""
    from pixelwise.errors import InputError
    from pixelwise.overwriting import check_output
    from pixelwise.weights.convert_weights import convert_weights
    from pixelwise.weights.importers.tensorflow_checkpoint import checkpoint_files

    inputs = [path for path in (file, *checkpoint_files(file)) if path.exists()]
    if out.exists() and any(out.samefile(path) for path in inputs):
        raise InputError(f"{out}: is the file to convert: choose another --out")
    check_output(out, overwrite=overwrite)
    from pixelwise.data.classes import read_classes_toml
    from pixelwise.recipes.load_recipe import parse_override

    conversion = convert_weights(
        file,
        model,
        classes=read_classes_toml(classes) if classes else None,
        options=dict(parse_override(text) for text in settings or []),
    )
    check_output(out, overwrite=overwrite)  # it may have appeared meanwhile
    conversion.bundle.save(out)
    console.print(facts_table(conversion.notes))
    print_line(f"written to {out}")
