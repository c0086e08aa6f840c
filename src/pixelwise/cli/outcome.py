"""How a run over many images ended, told to a person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pixelwise.cli.console import complain, console

if TYPE_CHECKING:
    from pixelwise.inference import FolderResult


def report_outcome(result: FolderResult, out: Path, *, total: int, what: str) -> bool:
    """Say it, and whether all `total` images could be predicted. what: is written of each."""
    from pixelwise.errors import InputError

    if result.outdated:
        console.print(
            f"{out}: held an unfinished run of another bundle or other settings: begun anew",
            soft_wrap=True,
        )
    if result.kept:
        console.print(
            f"{result.kept} of {total} images were finished by an earlier run and are kept",
            soft_wrap=True,
        )
    if result.faults:
        complain(InputError(*result.faults))
        done = result.written + result.kept
        console.print(f"{done} of {total} images predicted into {out}", soft_wrap=True)
        return False
    console.print(f"{result.written} {what} written to {out}", soft_wrap=True)
    return True
