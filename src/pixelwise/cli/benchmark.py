"""`pixelwise benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pixelwise.cli.console import Bar, check_json, command, console, write_json
from pixelwise.errors import InputError

if TYPE_CHECKING:
    from pixelwise.benchmark import Measurement


@command
def benchmark(
    bundle: Annotated[Path, typer.Argument(help="A .safetensors file that train wrote.")],
    size: Annotated[
        list[str] | None,
        typer.Option(help="Of the images, rows x columns; may be given again. [360x480]"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="ProcessGroup of each runtime.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long each repeats.")] = 3.0,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Also as JSON; - prints only that.")
    ] = None,
) -> None:
    """Measure every runtime and precision that a bundle has here, beside PyTorch eager."""
    check_json(json_file)
    sizes = [_size(text) for text in size or ["360x480"]]
    from pixelwise.benchmark import benchmark as measure

    with Bar("measuring", unit="processes") as bar:
        found = measure(bundle, sizes=sizes, rounds=rounds, seconds=seconds, progress=bar)
    if json_file != "-":
        for each in sizes:
            console.print(_table(bundle, each, [one for one in found if one.size == each]))
    content = {"bundle": str(bundle), "measurements": [one.to_json() for one in found]}
    write_json(json_file, content)


def _size(text: str) -> tuple[int, int]:
    """Raises InputError where it is not two whole numbers with an x between."""
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise InputError(f"--size {text}: rows x columns, as 360x480")
    return int(rows), int(columns)


def _table(bundle: Path, size: tuple[int, int], rows: list[Measurement]) -> Table:
    table = Table(title=f"{bundle} at {size[0]}x{size[1]}", title_justify="left")
    table.add_column("runtime")
    for name in ("ms", "images/s", "x eager", "equal", "GiB", "not network"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.runtime,
            f"{row.milliseconds:.1f}",
            f"{row.images_per_second:.1f}",
            f"{row.ratio:.2f}",
            f"{100 * row.equal:.3f} %",
            "" if row.memory is None else f"{row.memory / 2**30:.2f}",
            "" if row.other_share is None else f"{row.other_share:.0%}",
        )
    return table
