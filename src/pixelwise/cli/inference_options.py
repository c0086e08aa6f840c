"""Options of the commands that predict: how images are looked at."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Tile = Annotated[
    str,
    typer.Option(
        metavar="auto|N|none",
        help="Images that need over 2 GiB in one pass are cut into overlapping tiles; N: into "
        "such of at most N pixels a side; none: never.",
    ),
]
Scales = Annotated[
    str,
    typer.Option(
        metavar="S,S,...",
        help="Look at each image at these scales, as 0.75,1,1.25, and take the mean.",
    ),
]
Flip = Annotated[bool, typer.Option("--flip", help="Look at each image mirrored, too.")]


def looks(tile: str, scales: str, flip: bool) -> dict[str, Any]:
    """What `Predictor.load` takes for --tile, --scales and --flip. Raises InputError."""
    from pixelwise.errors import InputError
    from pixelwise.inference.tiling.tiled_model import check_tile
    from pixelwise.inference.tta import TTA

    side: int | str = int(tile) if tile.isascii() and tile.isdigit() else tile
    check_tile(side)
    try:
        numbers = tuple(float(part) for part in scales.split(","))
    except ValueError as error:
        raise InputError(
            f"scales {scales!r}: give numbers with commas between them, as 0.75,1,1.25"
        ) from error
    tta = TTA(numbers, flip)
    return {"tile": side, "scales": list(tta.scales), "flip": tta.flip}
