"""`pixelwise benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from typer import Option

from pixelwise.cli import flags
from pixelwise.cli.console import Bar, JsonOutput, command, console, make_table
from pixelwise.errors import PixelwiseError

if TYPE_CHECKING:
    from pixelwise.benchmark import Measurement


@command
def benchmark(
    bundle: flags.Bundle,
    size: Annotated[
        list[str] | None, Option(help="Image size, HEIGHTxWIDTH. Repeatable. Defaults to 360x480.")
    ] = None,
    rounds: Annotated[int, Option(min=1, help="Number of processes per runtime.")] = 3,
    seconds: Annotated[float, Option(min=0.0, help="Duration of each process.")] = 3.0,
    json_file: flags.JsonFile = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Measure the speed of all installed runtimes of a bundle, next to eager PyTorch."""
    output = JsonOutput(json_file, "benchmark", overwrite=overwrite)
    sizes = [flags.parse_size("--size", text) for text in size or ["360x480"]]
    from pixelwise.benchmark import benchmark as measure

    failed: dict[str, str] = {}
    with Bar("measuring", unit="processes") as bar:
        measurements = measure(
            bundle, sizes=sizes, rounds=rounds, seconds=seconds, progress=bar, failed=failed
        )
    if not output.alone:
        for each in sizes:
            console.print(_table(bundle, each, [row for row in measurements if row.size == each]))
    content = {"bundle": str(bundle), "measurements": [row.to_json() for row in measurements]}
    output.write(content)
    if failed:
        raise PixelwiseError(*failed.values())


def _table(bundle: Path, size: tuple[int, int], rows: list[Measurement]) -> Table:
    columns = ("ms", "images/s", "x eager", "equal", "GiB", "not network")
    table = make_table(f"{bundle} at {size[0]}x{size[1]}", ["runtime"], columns)
    for row in rows:
        table.add_row(
            row.runtime,
            f"{row.milliseconds:.1f}",
            f"{row.images_per_second:.1f}",
            f"{row.speedup:.2f}",
            f"{100 * row.equal:.3f} %",
            "" if row.memory is None else f"{row.memory / 2**30:.2f}",
            "" if row.file_fraction is None else f"{row.file_fraction:.0%}",
        )
    return table
