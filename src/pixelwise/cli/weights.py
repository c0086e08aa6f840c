"""`pixelwise weights list`, `pixelwise weights show` and `pixelwise weights get`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from rich import box
from rich.table import Table
from typer import Argument, Option, Typer

from pixelwise.cli.console import Transfer, command, console, facts_table, print_line

if TYPE_CHECKING:
    from pixelwise.weights.published.catalog import PublishedWeights

app = Typer(help="Published weights by name.", no_args_is_help=True)
Name = Annotated[str, Argument(help="A name from `pixelwise weights list`.")]


@app.command("list")
@command
def list_published(
    pattern: Annotated[str, Argument(help="Only names like this, such as '*_voc'.")] = "*",
    fetched: Annotated[bool, Option("--fetched", help="Only those on this machine.")] = False,
) -> None:
    """List the published weights, with size, score and whether they are on this machine."""
    from pixelwise.weights.published.catalog import WEIGHTS, list_weights

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("name", "network", "classes", "size", "published score", "here"):
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for name in list_weights(pattern):
        entry, here = WEIGHTS[name], WEIGHTS[name].find() is not None
        if here or not fetched:
            network = f"{entry.model} on {entry.backbone}" if entry.model else entry.backbone
            classes = "ImageNet" if entry.classes is None else str(len(entry.classes))
            table.add_row(name, network, classes, entry.size, entry.score, "yes" if here else "")
    console.print(table)


@app.command("show")
@command
def show(name: Name) -> None:
    """Show everything that is known about published weights."""
    from pixelwise.weights.published.catalog import find_weights

    console.print(facts_table(_facts(find_weights(name))))


@app.command("get")
@command
def get(name: Name) -> None:
    """Download published weights, verify them, and keep them as a bundle in the cache.

    An interrupted download continues where it stopped. A file that is already in the cache is not
    downloaded, so that this works without a network.
    """
    from pixelwise.weights.published.catalog import find_weights

    entry = find_weights(name)
    print_line(f"license: {entry.license}")
    from pixelwise.weights.published.fetch import get_weights

    with Transfer() as transfer:
        path = get_weights(name, progress=transfer.show)
    if not entry.remote.digest:
        print_line("nobody has published a digest of this file: only its content was checked")
    use = f"pixelwise predict {name} photo.jpg" if entry.model else ""
    use = use or f"pixelwise train DATA --weights {name} --backbone {entry.backbone}"
    print_line(f"written to {path}; use it: {use}")


def _facts(entry: PublishedWeights) -> dict[str, str]:
    remote, path = entry.remote, entry.find()
    options = ", ".join(f"{key}={value}" for key, value in entry.options.items())
    return {
        "name": entry.name,
        "network": entry.model or "ImageNet classifier, for --weights",
        "backbone": entry.backbone,
        "options": options,
        "classes": ", ".join(entry.classes.names) if entry.classes else "",
        "score": entry.score,
        "license": entry.license,
        "file": remote.file,
        "address": ", ".join(remote.urls),
        "package": entry.package,
        "size": entry.size,
        "digest": remote.described_digest + (f" (from {remote.source})" if remote.source else ""),
        "on this machine": "no" if path is None else str(path),
    }
