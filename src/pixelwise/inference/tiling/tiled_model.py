"""Logits of an image of any size: in one pass while that fits, else by tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isqrt
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.runtimes import (
    Runtime,
    TilingRequirements,
    TilingRuntime,
    View,
    runs_concurrently,
    supports_tiling,
)
from pixelwise.inference.tiling.image_source import ArraySource, ImageSource, PaddedSource
from pixelwise.inference.tiling.tile_grid import Block, Span, blend, cut, smallest_tile
from pixelwise.inference.tiling.tile_progress import NoTileProgress, Sums, TileProgress

AUTO, NONE = "auto", "none"
Progress = Callable[[int, int], None]

SMALL = 2**20
"""Pixels that are always predicted in one pass: so many take about a gigabyte at most."""

WHOLE = 12 * 2**20
"""The same where a runtime cannot see a tile as part of its image, and tiles are the worse
choice by far: images of common cameras."""

MEMORY = 2 << 30
"""Bytes that one pass may take beside the weights. The same on every machine, as the masks are."""

MARGIN = 0.75
"""Of a network's reach, the margin of its tiles. The rest of it says next to nothing: measured by
benchmarks/tiles.py, README. An image pooling asks for all of the reach of what is pooled."""

ROUNDED_MARGIN = 0.9
"""The same where maps are rounded to 8 bits."""

UNKNOWN = TilingRequirements(
    step=32,
    receptive_radius=512,
    pooled_receptive_radius=0,
    poolings=0,
    bytes_per_pixel=1024,
    label_bytes_per_pixel=1024,
)
"""What is taken of a network whose runtime does not tell."""


class TiledModel:
    """The logits of a runtime for images of any size.

    tile: "auto" for one pass where that takes no more than `memory` bytes, and tiles that do so
    else, but never smaller ones than their margins ask for; "none" for one pass always; or the
    largest side of a tile. The result is that of one pass but for what lies beyond the margins.
    A runtime that is no `TilingRuntime` sees each tile as an image of its own, padded to a
    multiple of 32: then image poolings are those of the tile, and maps are not stretched to sides
    that are no such multiple.
    Raises InputError for another tile.
    """

    def __init__(self, runtime: Runtime, *, tile: int | str = AUTO, memory: int = MEMORY) -> None:
        check_tile(tile)
        self.runtime = runtime
        self.tile = tile
        self.memory = memory
        self._alone = Lock()

    @property
    def requirements(self) -> TilingRequirements:
        return self.runtime.requirements if supports_tiling(self.runtime) else UNKNOWN

    @property
    def concurrency(self) -> int:
        """How many calls of `classify_concurrently` may run at the same time."""
        return self.runtime.concurrency if runs_concurrently(self.runtime) else 1

    def in_one_pass(self, size: tuple[int, int], *, labels: bool = False) -> bool:
        """Whether an image of this size (height, width) needs no tiles. labels: for these alone,
        without the logits."""
        if self.tile == NONE:
            return True
        if self.tile == AUTO:
            pixels = size[0] * size[1]
            return pixels <= (SMALL if supports_tiling(self.runtime) else WHOLE) or (
                pixels <= self._pixels(labels=labels)
            )
        return max(size) <= int(self.tile)

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(H, W, C) in units of 0..255 to (C, H, W) float32."""
        height, width = image.shape[:2]
        if self.in_one_pass((height, width)):
            return self.runtime.logits(image)
        whole: NDArray[np.float32] | None = None
        for block in self.blocks(ArraySource(image)):
            if whole is None:
                whole = np.empty((len(block.scores), height, width), np.float32)
            block.place(block.scores, whole)
        assert whole is not None
        return whole

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W, C) in units of 0..255 to (H, W) indices of the largest logits, by and by."""
        height, width = image.shape[:2]
        if self.in_one_pass((height, width), labels=True):
            return self.runtime.classify(image)
        index = np.empty((height, width), np.uint8)
        for block in self.blocks(ArraySource(image)):
            block.place(block.scores.argmax(axis=0), index)
        return index

    def classify_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """What `classify` gives, from any thread.

        Images of which `concurrency` together take no more than `memory` are given a core each;
        larger ones, and all where the runtime cannot do that, go one after the other.
        """
        height, width = image.shape[:2]
        if (
            runs_concurrently(self.runtime)
            and self.in_one_pass((height, width), labels=True)
            and height * width * self.concurrency <= self._pixels(labels=True)
        ):
            return self.runtime.classify_concurrently(image)
        with self._alone:
            return self.classify(image)

    def blocks(
        self,
        picture: ImageSource,
        *,
        progress: Progress | None = None,
        tile_progress: TileProgress | None = None,
    ) -> Iterator[Block]:
        """The image's logits by blocks that tile it, row by row.

        progress: called with the tiles that are done and all of them; those of a pass for an
        image pooling count, too. trail: where an earlier pass ended; what it gave is left out.
        Raises InputError where `tile` is too small for the network.
        """
        tile_progress = tile_progress or NoTileProgress()
        if self.in_one_pass(picture.size):
            if tile_progress.rows:
                return
            height, width = picture.size
            yield Block(0, 0, self.runtime.logits(picture.read(0, 0, height, width)))
            if progress is not None:
                progress(1, 1)
            return
        side = self._side()
        if supports_tiling(self.runtime):
            yield from _of_whole(self.runtime, picture, side, progress, tile_progress)
        else:
            yield from _alone(self.runtime, picture, side, progress, tile_progress)

    def _pixels(self, *, labels: bool = False) -> int:
        """How many pixels one pass may have."""
        requirements = self.requirements
        return int(
            self.memory
            / (requirements.label_bytes_per_pixel if labels else requirements.bytes_per_pixel)
        )

    def _side(self) -> int:
        """The largest side of a tile."""
        least = smallest_tile(margin=margin_of(self.requirements), step=self.requirements.step)
        if self.tile == AUTO:
            return max(isqrt(self._pixels()), least)
        if int(self.tile) < least:
            raise InputError(
                f"tile {self.tile}: this network sees {self.requirements.receptive_radius} pixels far and needs "
                f"tiles of {least} or more"
            )
        return int(self.tile)


def check_tile(tile: int | str) -> None:
    """Raise InputError for what is neither auto, none nor a number of pixels."""
    if tile not in {AUTO, NONE} and (isinstance(tile, str) or tile < 1):
        raise InputError(f"tile {tile}: allowed are auto, none and a number of pixels")


def margin_of(requirements: TilingRequirements) -> int:
    """Pixels that a tile sees beyond what is kept of it."""
    return round(
        (ROUNDED_MARGIN if requirements.rounded else MARGIN) * requirements.receptive_radius
    )


def _of_whole(
    runtime: TilingRuntime,
    picture: ImageSource,
    side: int,
    progress: Progress | None,
    tile_progress: TileProgress,
) -> Iterator[Block]:
    """Tiles as parts of their image: what image poolings see is summed up first."""
    requirements, margin = runtime.requirements, margin_of(runtime.requirements)
    grid = _Grid.over(picture.size, tile=side, margin=margin, step=requirements.step)
    # Never more than the logits' margin, which tiles of this size are known to hold.
    pooled_margin = min(margin, requirements.pooled_receptive_radius)
    sums_grid = _Grid.over(picture.size, tile=side, margin=pooled_margin, step=requirements.step)
    count = _Count(requirements.poolings * len(sums_grid) + len(grid), progress)
    means = _means(runtime, picture, sums_grid, count, tile_progress)

    def score(row: Span, column: Span) -> NDArray[np.float32]:
        view = View(picture.size, row.start, column.start, means)
        logits = runtime.tile_logits(_read(picture, row, column), view)
        count.one()
        return logits

    count.skip(_spared(tile_progress, grid))
    yield from blend(grid.rows, grid.columns, score, begin=tile_progress.rows)


def _means(
    runtime: TilingRuntime,
    picture: ImageSource,
    grid: _Grid,
    count: _Count,
    tile_progress: TileProgress,
) -> tuple[NDArray[np.float32], ...]:
    """The image's mean at each image pooling, one after the other: the next sees those before."""
    means: tuple[NDArray[np.float32], ...] = ()
    for pooling in range(runtime.requirements.poolings):
        so_far = tile_progress.sums(pooling)
        count.skip(so_far.rows * len(grid.columns))
        for row in grid.rows[so_far.rows :]:
            total, positions = so_far.total, so_far.positions
            for column in grid.columns:
                view = View(picture.size, row.start, column.start, means)
                own = (row.own, column.own)
                sums, counted = runtime.tile_sums(_read(picture, row, column), view, own)
                total, positions = total + sums, positions + counted
                count.one()
            so_far = Sums(so_far.rows + 1, total, positions)
            tile_progress.keep_sums(pooling, so_far)
        means += ((so_far.total / so_far.positions).astype(np.float32),)
    return means


def _alone(
    runtime: Runtime,
    picture: ImageSource,
    side: int,
    progress: Progress | None,
    tile_progress: TileProgress,
) -> Iterator[Block]:
    """Tiles as images of their own."""
    padded = PaddedSource(picture, UNKNOWN.step)
    grid = _Grid.over(padded.size, tile=side, margin=margin_of(UNKNOWN), step=UNKNOWN.step)
    count = _Count(len(grid), progress)

    def score(row: Span, column: Span) -> NDArray[np.float32]:
        logits = runtime.logits(_read(padded, row, column))
        count.one()
        return np.array(logits)  # blended in place, and it need not be ours

    count.skip(_spared(tile_progress, grid))
    for block in blend(grid.rows, grid.columns, score, begin=tile_progress.rows):
        yield block.cropped(picture.size)


@dataclass(frozen=True)
class _Grid:
    rows: list[Span]
    columns: list[Span]

    @classmethod
    def over(cls, size: tuple[int, int], *, tile: int, margin: int, step: int) -> _Grid:
        rows, columns = (cut(side, tile=tile, margin=margin, step=step) for side in size)
        return cls(rows, columns)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


def _spared(tile_progress: TileProgress, grid: _Grid) -> int:
    """Tiles that need not be computed: the row above the first that is given must be."""
    rows = (
        tile_progress.rows
        if tile_progress.rows == len(grid.rows)
        else max(tile_progress.rows - 1, 0)
    )
    return rows * len(grid.columns)


class _Count:
    """Tells `progress` of each tile that is done."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def skip(self, count: int) -> None:
        self.done += count

    def one(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


def _read(picture: ImageSource, row: Span, column: Span) -> Pixels:
    return picture.read(row.start, column.start, row.stop - row.start, column.stop - column.start)
