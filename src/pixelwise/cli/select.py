"""`pixelwise select`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pixelwise.cli import flags
from pixelwise.cli.console import Bar, JsonOutput, command, console, print_line
from pixelwise.errors import check_training_packages, collapse


class Files(StrEnum):
    """What --files puts into OUT/images."""

    COPY = "copy"
    LINK = "link"


@command
def select(
    pool: Annotated[list[Path], Argument(help="Images without labels, or folders of them.")],
    bundle: Annotated[Path, Option(help="A .safetensors file written by train.")],
    count: Annotated[int, Option(min=1, help="Number of images to choose.")] = 50,
    labelled: Annotated[
        Path | None,
        Option(
            "--labelled",
            "--labeled",
            metavar="DATA",
            help="Folder of the images and masks that there are: chosen images differ from these.",
        ),
    ] = None,
    out: Annotated[Path, Option(help="Folder for the results.")] = Path("selection"),
    files: Annotated[
        Files | None, Option(help="Also put the images into OUT/images: as copies, or as links.")
    ] = None,
    device: flags.Device = None,
    json_file: flags.JsonFile = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Choose which images of a pool to label next.

    Images are chosen that the network is in doubt about, rare and thin classes as much as others,
    and that differ from what is labeled and from each other.
    """
    output = JsonOutput(json_file, "select", overwrite=overwrite)
    check_training_packages()
    from pixelwise.inference import InferenceOptions
    from pixelwise.study.select import select as run

    predictor = flags.load_predictor(bundle, InferenceOptions("torch", device))
    with Bar("measuring the pool") as bar:
        result = run(
            pool,
            predictor,
            out,
            count=count,
            labeled=labelled,
            files=None if files is None else files.value,
            overwrite=overwrite,
            progress=bar,
        )
    for line in collapse(result.faults):
        print(f"pixelwise: {line}", file=sys.stderr)
    if not output.alone:
        chosen = f"{len(result.chosen)} of {result.pool} images"
        left_out = ", ".join(f"{number} {reason}" for reason, number in result.left_out.items())
        console.print(f"chosen       {chosen}")
        if left_out:
            console.print(f"left out     {left_out}")
        for note in result.notes:
            print_line(f"note         {note}")
        print_line(f"list         {result.list_file}")
        print_line(f"page         {result.page}")
    output.write(result.to_json())
