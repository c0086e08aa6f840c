"""Overlapping tiles: their positions, and the blending of their scores at the seams.

Tiles are evaluated as crops of the full image. Away from its border, a tile gives the same values
as a pass over the full image because every tile follows three rules. It starts at a multiple of
the network's coarsest stride, so that its feature maps are crops of the full image's. Its sides
differ from the image's by multiples of that stride, so that maps are rounded and padded at its
lower and right border as in the full image. And it extends by a margin beyond the core that is kept
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

RAMP = 16  # pixels on each side of a seam over which one tile fades into the next


@dataclass(frozen=True)
class Span:
    """A tile along one axis of the image, in pixels.

    Args:
        start: The tile's first pixel.
        stop: The end of the tile.
        core_start: The first pixel of its core, which lies between the seams. The cores of all
            tiles make up the image.
        core_stop: The end of its core.
    """

    start: int
    stop: int
    core_start: int
    core_stop: int

    @property
    def core(self) -> slice:
        """The core in pixels from the tile's start."""
        return slice(self.core_start - self.start, self.core_stop - self.start)


@dataclass(frozen=True)
class Block:
    """Final scores (C, h, w) of the image from row `top` and column `left` on."""

    top: int
    left: int
    scores: NDArray[np.float32]

    def crop(self, size: tuple[int, int]) -> Block:
        """Cut off everything outside an image of `size` (height, width)."""
        height, width = size
        return Block(self.top, self.left, self.scores[:, : height - self.top, : width - self.left])

    def paste(self, values: NDArray[Any], target: NDArray[Any]) -> None:
        """Write `values` (..., h, w) of this block to its position in `target` (..., H, W)."""
        height, width = self.scores.shape[1:]
        target[..., self.top : self.top + height, self.left : self.left + width] = values


def smallest_tile(*, margin: int, step: int) -> int:
    """Return the smallest tile that `cut` accepts for images of any length.

    Besides the overlap, it leaves each core two ramps, even when one tile more than necessary
    halves the distance between tiles, and seams and sides are rounded to the step.
    """
    return _overlap(margin, step) + 5 * step + 4 * RAMP


def cut(length: int, *, tile: int, margin: int, step: int) -> list[Span]:
    """Cut an axis into tiles of equal size.

    Args:
        length: The length of the axis in pixels.
        tile: The largest size of a tile.
        margin: Pixels between a seam and the border of the tiles that meet there, at least RAMP.
            There is no margin at the border of the image.
        step: Tiles and seams start at multiples of this.

    Raises:
        ValueError: If `tile` is smaller than `smallest_tile`.
    """
    if length <= tile:
        return [Span(0, length, 0, length)]
    if tile < smallest_tile(margin=margin, step=step):
        raise ValueError(f"tile {tile} does not hold two margins of {margin}")
    overlap = _overlap(margin, step)

    def stride(side: int, count: int) -> int:
        """Return the longest distance from one tile to the next."""
        return -((side - length) // step // (count - 1)) * step

    side = tile - (tile - length) % step
    count = 1 + -((side - length) // ((side - overlap) // step * step))
    smallest = smallest_tile(margin=margin, step=step) - step
    while side - step >= smallest and stride(side - step, count) <= side - step - overlap:
        side -= step  # the same number of tiles, with less overlap
    steps = (length - side) // step
    starts = [i * steps // (count - 1) * step for i in range(count)]
    seams = [(left + side + right) // 2 // step * step for left, right in pairwise(starts)]
    return [
        Span(start, start + side, core_start, core_stop)
        for start, core_start, core_stop in zip(starts, [0, *seams], [*seams, length], strict=True)
    ]


def blend(
    rows: list[Span],
    columns: list[Span],
    score: Callable[[Span, Span], NDArray[np.float32]],
    *,
    first_row: int = 0,
) -> Iterator[Block]:
    """Compute the scores of all tiles and blend them into blocks that cover the image.

    Around a seam, two tiles are mixed with weights that go from 1 to 0 and from 0 to 1 over RAMP
    pixels on either side. Elsewhere the scores of a tile are unchanged. Apart from one tile, only
    the stripes around the seams are kept in memory, one of them as wide as the image.

    Args:
        rows: The tiles along the vertical axis.
        columns: The tiles along the horizontal axis.
        score: Computes the scores (C, height, width) of the tile in a row and a column; the array
            may be modified.
        first_row: The first row of tiles whose blocks are returned. The row above it is computed,
            too, for its overlap.

    Yields:
        The blocks, row by row.
    """
    above: NDArray[np.float32] | None = None
    for number, row in enumerate(rows):
        if first_row == len(rows) or number < first_row - 1:
            continue
        top, bottom = row.core_start > 0, row is not rows[-1]
        below: NDArray[np.float32] | None = None
        left: NDArray[np.float32] | None = None
        for column in columns:
            last = column is columns[-1]
            y, x = row.core_start - RAMP * top, column.core_start - RAMP * (column.core_start > 0)
            block = score(row, column)[
                :,
                y - row.start : row.core_stop + RAMP * bottom - row.start,
                x - column.start : column.core_stop + RAMP * (not last) - column.start,
            ]
            _fade(block, 1, before=top, after=bottom)
            _fade(block, 2, before=column.core_start > 0, after=not last)
            if bottom:
                if below is None:
                    below = np.zeros((len(block), 2 * RAMP, columns[-1].stop), np.float32)
                below[:, :, x : x + block.shape[2]] += block[:, -2 * RAMP :]
                block = block[:, : -2 * RAMP]
            if left is not None:
                block[:, :, : 2 * RAMP] += left
            if not last:
                left = block[:, :, -2 * RAMP :].copy()
                block = block[:, :, : -2 * RAMP]
            if above is not None:
                block[:, : 2 * RAMP] += above[:, :, x : x + block.shape[2]]
            if number >= first_row:
                yield Block(y, x, block)
        above = below


def _fade(scores: NDArray[np.float32], axis: int, *, before: bool, after: bool) -> None:
    """Lower the scores towards the seams at their ends along `axis`."""
    shape = [1, 1, 1]
    shape[axis] = 2 * RAMP
    position = (np.arange(2 * RAMP, dtype=np.float32) + 0.5) / (2 * RAMP)
    rising = ((1 - np.cos(np.pi * position)) / 2).reshape(shape)
    edges = np.moveaxis(scores, axis, 0)
    rising = np.moveaxis(rising, axis, 0)
    if before:
        edges[: 2 * RAMP] *= rising
    if after:
        edges[-2 * RAMP :] *= 1 - rising


def _overlap(margin: int, step: int) -> int:
    """Return the overlap of neighbors: two margins, and a step that rounding of seams costs."""
    steps = -(-max(margin, RAMP) // step)
    return (2 * steps + 1) * step
