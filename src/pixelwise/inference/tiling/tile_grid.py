"""Overlapping tiles: where they lie, and how what they give is blended at their seams.

Every tile keeps three rules, by which what it computes away from its border is what a pass over
the whole image computes there. It begins at a multiple of the network's coarsest stride, so that
its maps are parts of the whole's maps. Its sides are the image's, less a multiple of that stride,
so that maps are rounded and padded at its lower and right border as the whole's are. And it reaches
a margin beyond what is kept of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

RAMP = 16  # pixels on both sides of a seam over which one tile fades into the next


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in pixels: `start` to `stop`; `first` to `last`, between the seams,
    is its own share of the image. The shares of all tiles make up the whole."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def own(self) -> slice:
        """Its share, in pixels from its start."""
        return slice(self.first - self.start, self.last - self.start)


@dataclass(frozen=True)
class Block:
    """Finished scores (C, h, w) of the image from row `top` and column `left` on."""

    top: int
    left: int
    scores: NDArray[np.float32]

    def cropped(self, size: tuple[int, int]) -> Block:
        """Without what lies beyond an image of `size` (height, width)."""
        height, width = size
        return Block(self.top, self.left, self.scores[:, : height - self.top, : width - self.left])

    def place(self, values: NDArray[Any], whole: NDArray[Any]) -> None:
        """Write `values` (..., h, w) of this block where it lies in those of the image."""
        height, width = self.scores.shape[1:]
        whole[..., self.top : self.top + height, self.left : self.left + width] = values


def smallest_tile(*, margin: int, step: int) -> int:
    """The least that `cut` can be given for an image of any length.

    Beyond what tiles have in common it leaves them two ramps a share, even where one tile more
    than needed halves the way between them, and seams and sides are rounded to the step.
    """
    return _overlap(margin, step) + 5 * step + 4 * RAMP


def cut(length: int, *, tile: int, margin: int, step: int) -> list[Span]:
    """Tiles of at most `tile` pixels along an axis of `length`, all of one size.

    margin: pixels between a seam and the border of the tiles that meet there, RAMP at least; the
    image's own border has none. step: tiles and seams begin at multiples of it.
    Raises ValueError for a tile below `smallest_tile`.
    """
    if length <= tile:
        return [Span(0, length, 0, length)]
    if tile < smallest_tile(margin=margin, step=step):
        raise ValueError(f"tile {tile} does not hold two margins of {margin}")
    overlap = _overlap(margin, step)

    def advance(side: int, count: int) -> int:
        """The longest way from one tile to the next."""
        return -((side - length) // step // (count - 1)) * step

    side = tile - (tile - length) % step
    count = 1 + -((side - length) // ((side - overlap) // step * step))
    least = smallest_tile(margin=margin, step=step) - step
    while side - step >= least and advance(side - step, count) <= side - step - overlap:
        side -= step  # as many tiles, with less in common
    steps = (length - side) // step
    starts = [i * steps // (count - 1) * step for i in range(count)]
    seams = [(left + side + right) // 2 // step * step for left, right in pairwise(starts)]
    return [
        Span(start, start + side, first, last)
        for start, first, last in zip(starts, [0, *seams], [*seams, length], strict=True)
    ]


def blend(
    rows: list[Span],
    columns: list[Span],
    score: Callable[[Span, Span], NDArray[np.float32]],
    *,
    begin: int = 0,
) -> Iterator[Block]:
    """What `score` gives for each tile, (C, height, width), as blocks that tile the image.

    Tiles come row by row. Around a seam two tiles are mixed, from 1 to 0 and 0 to 1 over RAMP
    pixels on either side; what is further from it is left as it is. Besides a tile only these
    stripes are kept in memory, one of them as wide as the image. Arrays may be written to.

    begin: the first row of tiles whose blocks are given. The one above it is computed for what
    it has in common with it.
    """
    above: NDArray[np.float32] | None = None
    for number, row in enumerate(rows):
        if begin == len(rows) or number < begin - 1:
            continue
        top, bottom = row.first > 0, row is not rows[-1]
        below: NDArray[np.float32] | None = None
        left: NDArray[np.float32] | None = None
        for column in columns:
            last = column is columns[-1]
            y, x = row.first - RAMP * top, column.first - RAMP * (column.first > 0)
            block = score(row, column)[
                :,
                y - row.start : row.last + RAMP * bottom - row.start,
                x - column.start : column.last + RAMP * (not last) - column.start,
            ]
            _fade(block, 1, before=top, after=bottom)
            _fade(block, 2, before=column.first > 0, after=not last)
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
            if number >= begin:
                yield Block(y, x, block)
        above = below


def _fade(scores: NDArray[np.float32], axis: int, *, before: bool, after: bool) -> None:
    """Lower the scores towards the seams at their ends along `axis`."""
    shape = [1, 1, 1]
    shape[axis] = 2 * RAMP
    place = (np.arange(2 * RAMP, dtype=np.float32) + 0.5) / (2 * RAMP)
    rising = ((1 - np.cos(np.pi * place)) / 2).reshape(shape)
    edges = np.moveaxis(scores, axis, 0)
    rising = np.moveaxis(rising, axis, 0)
    if before:
        edges[: 2 * RAMP] *= rising
    if after:
        edges[-2 * RAMP :] *= 1 - rising


def _overlap(margin: int, step: int) -> int:
    """What neighbors have in common: two margins, and a step that is lost to rounded seams."""
    steps = -(-max(margin, RAMP) // step)
    return (2 * steps + 1) * step
