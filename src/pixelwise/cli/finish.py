"""`pixelwise finish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from pixelwise.cli.console import command, print_line


@command
def finish(run: Annotated[Path, Argument(help="Folder of a run that is active.")]) -> None:
    """End a run after its current epoch; it is then scored as after its last one.

    The process that trains writes the bundles and the report. With Ctrl-C or SIGTERM a run stops
    after the current step instead, and can be resumed.
    """
    from pixelwise.api import finish as request

    print_line(request(run))
