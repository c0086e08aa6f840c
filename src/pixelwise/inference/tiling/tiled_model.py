"""The logits of images of any size: in one pass if it fits into memory, otherwise in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.runtimes import (
    Runtime,
    TileView,
    TilingRequirements,
    TilingRuntime,
    runs_concurrently,
    supports_tiling,
)
from pixelwise.inference.runtimes.forking import ProcessLock
from pixelwise.inference.tiling.image_source import ArraySource, ImageSource, PaddedSource
from pixelwise.inference.tiling.tile_grid import Block, Span, blend, cut, smallest_tile
from pixelwise.inference.tiling.tile_progress import PoolingSums, TileProgress

AUTO, NONE = "auto", "none"

SMALL_IMAGE = 2**20
"""Pixels that are always predicted in one pass, which takes about a gigabyte at most."""

CAMERA_IMAGE = 12 * 2**20
"""The same for a runtime that does not support tiling, whose tiles are far worse than one pass:
the size of images from common cameras."""

MEMORY = 2 << 30
"""Bytes that one pass may take besides the weights: the same on every machine, so that the masks
are also the same."""

MARGIN = 0.75
"""The margin of tiles as a fraction of the receptive radius. The outer part of the receptive field
has next to no influence: measured with benchmarks/tiling.py. Image pooling requires the full radius
of the pooled map."""

ROUNDED_MARGIN = 0.9
"""The same for networks whose maps are rounded to 8 bits."""

DEFAULT_REQUIREMENTS = TilingRequirements(
    step=32,
    receptive_radius=512,
    pooled_receptive_radius=0,
    poolings=0,
    bytes_per_pixel=1024,
    label_bytes_per_pixel=1024,
)
"""Assumed for a runtime that does not support tiling."""


class TiledModel:
    """Computes the logits of images of any size.

    The result matches a single pass, except for the influence of pixels beyond the margins of the
    tiles. A runtime that does not support tiling evaluates each tile as a separate image, padded to
    a multiple of 32: its image poolings then cover the tile only, and its maps are not resized to
    the sides of the full image.

    Args:
        runtime: Runs the network.
        tile: "auto" uses one pass if it takes no more than `memory` bytes and otherwise tiles that
            do so, but never tiles smaller than their margins require; "none" always uses one pass;
            a number is the largest side of a tile in pixels.
        memory: Bytes that one pass may take.

    Raises:
        InputError: If `tile` is not one of these.
    """

    def __init__(self, runtime: Runtime, *, tile: int | str = AUTO, memory: int = MEMORY) -> None:
        check_tile(tile)
        self.runtime = runtime
        self.tile = tile
        self.memory = memory
        self._one_at_a_time = ProcessLock()

    @property
    def requirements(self) -> TilingRequirements:
        return self.runtime.requirements if supports_tiling(self.runtime) else DEFAULT_REQUIREMENTS

    @property
    def concurrency(self) -> int:
        """The number of calls of `predict_labels_concurrently` that may run at the same time."""
        return self.runtime.concurrency if runs_concurrently(self.runtime) else 1

    def check_tile_side(self) -> None:
        """Raise InputError if `tile` is a number that is too small for the network."""
        if isinstance(self.tile, int):
            self._tile_side()

    def in_one_pass(self, size: tuple[int, int], *, labels: bool = False) -> bool:
        """Return whether an image needs no tiles.

        Args:
            size: (height, width) of the image.
            labels: Whether only labels are computed, without keeping the logits.
        """
        if self.tile == NONE:
            return True
        if self.tile == AUTO:
            pixels = size[0] * size[1]
            always = SMALL_IMAGE if supports_tiling(self.runtime) else CAMERA_IMAGE
            return pixels <= always or pixels <= self._max_pixels(labels=labels)
        return max(size) <= int(self.tile)

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """Map an image (H, W, C) in units of 0..255 to logits (classes, H, W) float32."""
        height, width = image.shape[:2]
        if self.in_one_pass((height, width)):
            with self._turn((height, width)):
                return self.runtime.logits(image)
        logits: NDArray[np.float32] | None = None
        with self._one_at_a_time:
            for block in self.blocks(ArraySource(image)):
                if logits is None:
                    logits = np.empty((len(block.scores), height, width), np.float32)
                block.paste(block.scores, logits)
        assert logits is not None
        return logits

    def predict_labels(self, image: Pixels) -> NDArray[np.uint8]:
        """Map an image (H, W, C) to class indices (H, W), without keeping all of the logits."""
        height, width = image.shape[:2]
        if self.in_one_pass((height, width), labels=True):
            with self._turn((height, width), labels=True):
                return self.runtime.predict_labels(image)
        index = np.empty((height, width), np.uint8)
        with self._one_at_a_time:
            for block in self.blocks(ArraySource(image)):
                block.paste(block.scores.argmax(axis=0), index)
        return index

    def predict_labels_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """Do the same as `predict_labels`, from any thread.

        Images run on one core each if `concurrency` of them together take no more than `memory`.
        Larger images, and all images of other runtimes, run one after the other.
        """
        height, width = image.shape[:2]
        if (
            runs_concurrently(self.runtime)
            and self.in_one_pass((height, width), labels=True)
            and self._fits_together((height, width), labels=True)
        ):
            return self.runtime.predict_labels_concurrently(image)
        with self._one_at_a_time:
            return self.predict_labels(image)

    def _turn(
        self, size: tuple[int, int], *, labels: bool = False
    ) -> AbstractContextManager[object]:
        """Return what a thread must hold for one pass: nothing if several fit into memory."""
        # Other runtimes let one thread at a time compute anyway.
        together = not runs_concurrently(self.runtime) or self._fits_together(size, labels=labels)
        return nullcontext() if together else self._one_at_a_time

    def _fits_together(self, size: tuple[int, int], *, labels: bool = False) -> bool:
        """Return whether `concurrency` images take no more than `memory`."""
        return size[0] * size[1] * self.concurrency <= self._max_pixels(labels=labels)

    def blocks(
        self,
        image: ImageSource,
        *,
        progress: ProgressCallback | None = None,
        tile_progress: TileProgress | None = None,
    ) -> Iterator[Block]:
        """Compute the logits in blocks that cover the image, row by row.

        Args:
            image: The image.
            progress: Called after each tile. The passes for image poolings also count.
            tile_progress: Where an earlier pass ended; its blocks are not computed again.

        Raises:
            InputError: If `tile` is too small for the network.
        """
        tile_progress = tile_progress or TileProgress()
        if self.in_one_pass(image.size):
            if tile_progress.rows:
                return
            height, width = image.size
            yield Block(0, 0, self.runtime.logits(image.read(0, 0, height, width)))
            if progress is not None:
                progress(1, 1)
            return
        needs, runtime, margin = self.requirements, self.runtime, margin_of(self.requirements)
        tiles = image if supports_tiling(runtime) else PaddedSource(image, needs.step)
        side = self._tile_side()
        grid = _Grid.over(tiles.size, tile=side, margin=margin, step=needs.step)
        # Never more than the margin of the logits, which tiles of this size are known to hold.
        pooled_margin = min(margin, needs.pooled_receptive_radius)
        sums_grid = _Grid.over(tiles.size, tile=side, margin=pooled_margin, step=needs.step)
        counter = ProgressCounter(needs.poolings * len(sums_grid) + len(grid), progress)
        means: tuple[NDArray[np.float32], ...] = ()
        if supports_tiling(runtime):
            means = _means(runtime, image, sums_grid, counter, tile_progress)

        def score(row: Span, column: Span) -> NDArray[np.float32]:
            tile = _read(tiles, row, column)
            if supports_tiling(runtime):
                view = TileView(image.size, row.start, column.start, means)
                logits = runtime.tile_logits(tile, view)
            else:  # blending modifies the logits, and the runtime may own the original
                logits = np.array(runtime.logits(tile))
            counter.count()
            return logits

        rows = tile_progress.rows
        # The row above the first unfinished one is computed again.
        skipped = rows if rows == len(grid.rows) else max(rows - 1, 0)
        counter.done += skipped * len(grid.columns)
        for block in blend(grid.rows, grid.columns, score, first_row=rows):
            yield block.crop(image.size)

    def _max_pixels(self, *, labels: bool = False) -> int:
        """Return the largest number of pixels of one pass."""
        needs = self.requirements
        return int(self.memory / (needs.label_bytes_per_pixel if labels else needs.bytes_per_pixel))

    def _tile_side(self) -> int:
        needs = self.requirements
        smallest = smallest_tile(margin=margin_of(needs), step=needs.step)
        if self.tile == AUTO:
            return max(isqrt(self._max_pixels()), smallest)
        if int(self.tile) < smallest:
            raise InputError(
                f"tile {self.tile}: the receptive field of this network extends "
                f"{needs.receptive_radius} pixels to each side: give {smallest} or more"
            )
        return int(self.tile)


def check_tile(tile: int | str) -> None:
    """Raise InputError unless `tile` is "auto", "none" or a number of pixels."""
    if tile not in {AUTO, NONE} and (isinstance(tile, str) or tile < 1):
        raise InputError(f"tile {tile}: allowed are auto, none and a number of pixels")


def margin_of(requirements: TilingRequirements) -> int:
    """Return the margin of tiles in pixels."""
    fraction = ROUNDED_MARGIN if requirements.rounded else MARGIN
    return round(fraction * requirements.receptive_radius)


def _means(
    runtime: TilingRuntime,
    image: ImageSource,
    grid: _Grid,
    counter: ProgressCounter,
    tile_progress: TileProgress,
) -> tuple[NDArray[np.float32], ...]:
    """Compute the full image's mean at each image pooling, which depends on the means before."""
    means: tuple[NDArray[np.float32], ...] = ()
    for pooling in range(runtime.requirements.poolings):
        sums = tile_progress.sums(pooling)
        counter.done += sums.rows * len(grid.columns)
        for row in grid.rows[sums.rows :]:
            total, positions = sums.total, sums.positions
            for column in grid.columns:
                view = TileView(image.size, row.start, column.start, means)
                core = (row.core, column.core)
                tile_total, count = runtime.tile_sums(_read(image, row, column), view, core)
                total, positions = total + tile_total, positions + count
                counter.count()
            sums = PoolingSums(sums.rows + 1, total, positions)
            tile_progress.save_sums(pooling, sums)
        means += ((sums.total / sums.positions).astype(np.float32),)
    return means


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


class ProgressCounter:
    """Counts steps, and reports their number and the number of all steps to `progress`."""

    def __init__(self, total: int, progress: ProgressCallback | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def count(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


def _read(image: ImageSource, row: Span, column: Span) -> Pixels:
    return image.read(row.start, column.start, row.stop - row.start, column.stop - column.start)
