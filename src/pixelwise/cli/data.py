"""`pixelwise convert-data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pixelwise.cli.console import Bar, command, console, facts_table


@command
def convert_data(
    source: Annotated[Path, typer.Argument(help="A data set in any layout that is read.")],
    target: Annotated[Path, typer.Argument(help="The folder to write.")],
    overwrite: Annotated[
        bool, typer.Option(help="Replace an earlier conversion in TARGET.")
    ] = False,
) -> None:
    """Write a data set as images/, masks/ and classes.toml."""
    from pixelwise.data.convert import convert_data as convert
    from pixelwise.data.pixels import RGB

    with Bar("checking the data") as checking, Bar("writing") as writing:
        data = convert(source, target, overwrite=overwrite, checking=checking, writing=writing)
    facts = {
        "layout": data.layout,
        "images": ", ".join(f"{split} {len(samples)}" for split, samples in data.splits.items()),
        "pictures": "" if data.pixels == RGB else str(data.pixels),
        "classes": ", ".join(data.classes.names),
        "found": "; ".join(data.notes),
    }
    console.print(facts_table(facts))
    console.print(f"written to {target}", soft_wrap=True)
