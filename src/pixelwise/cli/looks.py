"""Options of the commands that predict: how pictures are looked at."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Window = Annotated[
    str,
    typer.Option(
        metavar="auto|N|none",
        help="Pictures that need over 2 GiB in one pass are cut into overlapping windows; N: into "
        "such of at most N pixels a side; none: never.",
    ),
]
Scales = Annotated[
    str,
    typer.Option(
        metavar="S,S,...",
        help="Look at each picture at these scales, as 0.75,1,1.25, and take the mean.",
    ),
]
Flip = Annotated[bool, typer.Option("--flip", help="Look at each picture mirrored, too.")]


def looks(window: str, scales: str, flip: bool) -> dict[str, Any]:
    """What `Predictor.load` takes for --window, --scales and --flip. Raises InputError."""
    from pixelwise.errors import InputError
    from pixelwise.inference.anysize import check_window
    from pixelwise.inference.ensemble import Ensemble

    side: int | str = int(window) if window.isascii() and window.isdigit() else window
    check_window(side)
    try:
        numbers = tuple(float(part) for part in scales.split(","))
    except ValueError as error:
        raise InputError(
            f"scales {scales!r}: give numbers with commas between them, as 0.75,1,1.25"
        ) from error
    ensemble = Ensemble(numbers, flip)
    return {"window": side, "scales": list(ensemble.scales), "flip": ensemble.flip}
