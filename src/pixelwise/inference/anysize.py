"""Logits of a picture of any size: in one pass while that fits, else by windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isqrt
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixels import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.pictures import ArrayPicture, PaddedPicture, Picture
from pixelwise.inference.runtimes import (
    PartRuntime,
    Runtime,
    Traits,
    View,
    knows_parts,
    runs_concurrently,
)
from pixelwise.inference.trail import NoTrail, Sums, Trail
from pixelwise.inference.windows import Block, Span, blend, cut, smallest_window

AUTO, NONE = "auto", "none"
Progress = Callable[[int, int], None]

SMALL = 2**20
"""Pixels that are always predicted in one pass: so many take about a gigabyte at most."""

WHOLE = 12 * 2**20
"""The same where a runtime cannot see a window as part of its picture, and windows are the worse
choice by far: photographs of common cameras."""

MEMORY = 2 << 30
"""Bytes that one pass may take beside the weights. The same on every machine, as the masks are."""

MARGIN = 0.75
"""Of a network's reach, the margin of its windows. The rest of it says next to nothing: measured by
benchmarks/windows.py, README. An image pooling asks for all of the reach of what is pooled."""

ROUNDED_MARGIN = 0.9
"""The same where maps are rounded to 8 bits."""

UNKNOWN = Traits(
    step=32,
    reach=512,
    pooled_reach=0,
    poolings=0,
    bytes_per_pixel=1024,
    label_bytes_per_pixel=1024,
)
"""What is taken of a network whose runtime does not tell."""


class AnySize:
    """The logits of a runtime for pictures of any size.

    window: "auto" for one pass where that takes no more than `memory` bytes, and windows that do so
    else, but never smaller ones than their margins ask for; "none" for one pass always; or the
    largest side of a window. The result is that of one pass but for what lies beyond the margins.
    A runtime that is no `PartRuntime` sees each window as a picture of its own, padded to a
    multiple of 32: then image poolings are those of the window, and maps are not stretched to sides
    that are no such multiple.
    Raises InputError for another window.
    """

    def __init__(self, runtime: Runtime, *, window: int | str = AUTO, memory: int = MEMORY) -> None:
        check_window(window)
        self.runtime = runtime
        self.window = window
        self.memory = memory
        self._alone = Lock()

    @property
    def traits(self) -> Traits:
        return self.runtime.traits if knows_parts(self.runtime) else UNKNOWN

    @property
    def concurrency(self) -> int:
        """How many calls of `classify_concurrently` may run at the same time."""
        return self.runtime.concurrency if runs_concurrently(self.runtime) else 1

    def in_one_pass(self, size: tuple[int, int], *, labels: bool = False) -> bool:
        """Whether a picture of this size (height, width) needs no windows. labels: for these alone,
        without the logits."""
        if self.window == NONE:
            return True
        if self.window == AUTO:
            pixels = size[0] * size[1]
            return pixels <= (SMALL if knows_parts(self.runtime) else WHOLE) or (
                pixels <= self._pixels(labels=labels)
            )
        return max(size) <= int(self.window)

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(H, W, C) in units of 0..255 to (C, H, W) float32."""
        height, width = image.shape[:2]
        if self.in_one_pass((height, width)):
            return self.runtime.logits(image)
        whole: NDArray[np.float32] | None = None
        for block in self.blocks(ArrayPicture(image)):
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
        for block in self.blocks(ArrayPicture(image)):
            block.place(block.scores.argmax(axis=0), index)
        return index

    def classify_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """What `classify` gives, from any thread.

        Pictures of which `concurrency` together take no more than `memory` are given a core each;
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
        self, picture: Picture, *, progress: Progress | None = None, trail: Trail | None = None
    ) -> Iterator[Block]:
        """The picture's logits by blocks that tile it, row by row.

        progress: called with the windows that are done and all of them; those of a pass for an
        image pooling count, too. trail: where an earlier pass ended; what it gave is left out.
        Raises InputError where `window` is too small for the network.
        """
        trail = trail or NoTrail()
        if self.in_one_pass(picture.size):
            if trail.rows:
                return
            height, width = picture.size
            yield Block(0, 0, self.runtime.logits(picture.read(0, 0, height, width)))
            if progress is not None:
                progress(1, 1)
            return
        side = self._side()
        if knows_parts(self.runtime):
            yield from _of_whole(self.runtime, picture, side, progress, trail)
        else:
            yield from _alone(self.runtime, picture, side, progress, trail)

    def _pixels(self, *, labels: bool = False) -> int:
        """How many pixels one pass may have."""
        traits = self.traits
        return int(
            self.memory / (traits.label_bytes_per_pixel if labels else traits.bytes_per_pixel)
        )

    def _side(self) -> int:
        """The largest side of a window."""
        least = smallest_window(margin=margin_of(self.traits), step=self.traits.step)
        if self.window == AUTO:
            return max(isqrt(self._pixels()), least)
        if int(self.window) < least:
            raise InputError(
                f"window {self.window}: this network sees {self.traits.reach} pixels far and needs "
                f"windows of {least} or more"
            )
        return int(self.window)


def check_window(window: int | str) -> None:
    """Raise InputError for what is neither auto, none nor a number of pixels."""
    if window not in {AUTO, NONE} and (isinstance(window, str) or window < 1):
        raise InputError(f"window {window}: allowed are auto, none and a number of pixels")


def margin_of(traits: Traits) -> int:
    """Pixels that a window sees beyond what is kept of it."""
    return round((ROUNDED_MARGIN if traits.rounded else MARGIN) * traits.reach)


def _of_whole(
    runtime: PartRuntime, picture: Picture, side: int, progress: Progress | None, trail: Trail
) -> Iterator[Block]:
    """Windows as parts of their picture: what image poolings see is summed up first."""
    traits, margin = runtime.traits, margin_of(runtime.traits)
    grid = _Grid.over(picture.size, window=side, margin=margin, step=traits.step)
    # Never more than the logits' margin, which windows of this size are known to hold.
    pooled_margin = min(margin, traits.pooled_reach)
    sums_grid = _Grid.over(picture.size, window=side, margin=pooled_margin, step=traits.step)
    count = _Count(traits.poolings * len(sums_grid) + len(grid), progress)
    means = _means(runtime, picture, sums_grid, count, trail)

    def score(row: Span, column: Span) -> NDArray[np.float32]:
        view = View(picture.size, row.start, column.start, means)
        logits = runtime.part_logits(_read(picture, row, column), view)
        count.one()
        return logits

    count.skip(_spared(trail, grid))
    yield from blend(grid.rows, grid.columns, score, begin=trail.rows)


def _means(
    runtime: PartRuntime, picture: Picture, grid: _Grid, count: _Count, trail: Trail
) -> tuple[NDArray[np.float32], ...]:
    """The picture's mean at each image pooling, one after the other: the next sees those before."""
    means: tuple[NDArray[np.float32], ...] = ()
    for pooling in range(runtime.traits.poolings):
        so_far = trail.sums(pooling)
        count.skip(so_far.rows * len(grid.columns))
        for row in grid.rows[so_far.rows :]:
            total, positions = so_far.total, so_far.positions
            for column in grid.columns:
                view = View(picture.size, row.start, column.start, means)
                own = (row.own, column.own)
                sums, counted = runtime.part_sums(_read(picture, row, column), view, own)
                total, positions = total + sums, positions + counted
                count.one()
            so_far = Sums(so_far.rows + 1, total, positions)
            trail.keep_sums(pooling, so_far)
        means += ((so_far.total / so_far.positions).astype(np.float32),)
    return means


def _alone(
    runtime: Runtime, picture: Picture, side: int, progress: Progress | None, trail: Trail
) -> Iterator[Block]:
    """Windows as pictures of their own."""
    padded = PaddedPicture(picture, UNKNOWN.step)
    grid = _Grid.over(padded.size, window=side, margin=margin_of(UNKNOWN), step=UNKNOWN.step)
    count = _Count(len(grid), progress)

    def score(row: Span, column: Span) -> NDArray[np.float32]:
        logits = runtime.logits(_read(padded, row, column))
        count.one()
        return np.array(logits)  # blended in place, and it need not be ours

    count.skip(_spared(trail, grid))
    for block in blend(grid.rows, grid.columns, score, begin=trail.rows):
        yield block.cropped(picture.size)


@dataclass(frozen=True)
class _Grid:
    rows: list[Span]
    columns: list[Span]

    @classmethod
    def over(cls, size: tuple[int, int], *, window: int, margin: int, step: int) -> _Grid:
        rows, columns = (cut(side, window=window, margin=margin, step=step) for side in size)
        return cls(rows, columns)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


def _spared(trail: Trail, grid: _Grid) -> int:
    """Windows that need not be computed: the row above the first that is given must be."""
    rows = trail.rows if trail.rows == len(grid.rows) else max(trail.rows - 1, 0)
    return rows * len(grid.columns)


class _Count:
    """Tells `progress` of each window that is done."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def skip(self, count: int) -> None:
        self.done += count

    def one(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


def _read(picture: Picture, row: Span, column: Span) -> Pixels:
    return picture.read(row.start, column.start, row.stop - row.start, column.stop - column.start)
