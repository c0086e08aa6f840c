"""`pixelwise convert-data`, `pixelwise data get` and `pixelwise data list`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich import box
from rich.table import Table
from typer import Argument, Option, Typer

from pixelwise.cli import flags
from pixelwise.cli.console import (
    Bar,
    Transfer,
    command,
    console,
    facts_table,
    gigabytes,
    print_line,
)

app = Typer(help="Published datasets.", no_args_is_help=True)


@command
def convert_data(
    source: Annotated[Path, Argument(help="A dataset in any supported layout.")],
    target: Annotated[Path, Argument(help="The folder to write.")],
    overwrite: Annotated[bool, Option(help="Replace an earlier conversion in TARGET.")] = False,
    images: flags.Images = None,
    masks: flags.Masks = None,
) -> None:
    """Convert a dataset to images/, masks/ and classes.toml."""
    from pixelwise.data.convert_dataset import convert_data as convert
    from pixelwise.data.pixel_format import RGB

    with Bar("checking the dataset") as checking, Bar("writing") as writing:
        data = convert(
            source,
            target,
            overwrite=overwrite,
            checking=checking,
            writing=writing,
            spec=flags.dataset_spec(images, masks),
        )
    facts = {
        "layout": data.layout,
        "images": ", ".join(f"{split} {len(samples)}" for split, samples in data.splits.items()),
        "format": "" if data.pixels == RGB else str(data.pixels),
        "classes": ", ".join(data.classes.names),
        "notes": "; ".join(data.notes),
    }
    console.print(facts_table(facts))
    print_line(f"written to {target}")


@app.command("get")
@command
def get_data(
    name: Annotated[str, Argument(help="A name from `pixelwise data list`.")],
    to: Annotated[Path | None, Option(help="The folder to create.", show_default="NAME")] = None,
) -> None:
    """Download a published dataset, verify it and unpack it.

    An interrupted download continues where it stopped. Archives that are already in TO.archives
    are not downloaded, so that this works without a network.
    """
    from pixelwise.data.published import fetch_dataset, find_dataset

    entry = find_dataset(name)
    print_line(f"{entry.title}\nterms: {entry.terms}")
    with Transfer() as transfer:
        folder = fetch_dataset(entry.name, to, progress=transfer.show)
    if entry.extra:
        print_line(entry.extra)
    print_line(f"written to {folder}; train on it: pixelwise train {folder}")


@app.command("list")
@command
def list_data() -> None:
    """List the published datasets that `data get` can download, with size and terms."""
    from pixelwise.data.published import DATASETS

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("name", "content", "download", "verified by", "terms"):
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for entry in DATASETS.values():
        size = "manual" if not entry.archives else gigabytes(entry.size)
        digests = {"sha256": "SHA-256", "md5": "MD5"}
        kinds = dict.fromkeys(digests[archive.algorithm] for archive in entry.archives)
        table.add_row(entry.name, entry.title, size, ", ".join(kinds) or "-", entry.terms)
    console.print(table)
