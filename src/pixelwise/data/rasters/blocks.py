"""Divide rasters into windows, and these into spatial blocks that are drawn for one split.

Blocks are squares on the ground: the windows of all rasters are placed on the pixel grid of the
finest one. Rasters of the same place, such as two dates, therefore do not leak between splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import RawImage
from pixelwise.data.rasters.raster_file import Raster, Window
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError

_SIZES = (1024, 512, 256, 128)
_ENOUGH = 20
_BLOCKS = {8: _ENOUGH, 4: _ENOUGH, 2: 5, 1: 1}
"""The largest windows and blocks of which there are at least so many are the default."""
_APART = 1e9
"""Pixels between rasters whose relative position is not known."""


@dataclass(frozen=True, eq=False)
class RasterWindow:
    """A window of a raster; implements `ImagePart`.

    Attributes:
        raster: The raster.
        window: The window.
        place: (4, 2) its corners on the common grid.
    """

    raster: Raster
    window: Window
    place: NDArray[np.float64]

    def read(self, label: Path) -> RawImage:
        return self.raster.read(self.window, label)


def cut(rasters: Sequence[Raster], size: int | None) -> list[list[Window]]:
    """Divide each raster into windows of nearly equal sides, at most `size`, without overlap."""
    found: list[list[Window]] = []
    for side in _SIZES if size is None else (size,):
        found = [_cut(raster.size, side) for raster in rasters]
        if sum(map(len, found)) >= _ENOUGH:
            break
    return found


def _cut(size: tuple[int, int], side: int) -> list[Window]:
    rows, columns = (_edges(length, side) for length in size)
    return [
        Window(top, left, bottom - top, right - left)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]


def _edges(length: int, side: int) -> list[int]:
    count = -(-length // side)
    return [round(i * length / count) for i in range(count + 1)]


def place(rasters: Sequence[Raster], windows: Sequence[Sequence[Window]]) -> list[RasterWindow]:
    """Place all windows on the pixel grid of the finest raster.

    Rasters without a position, or with one that has none in that reference system, are placed far
    away from the others.
    """
    sizes = [raster.pixel_size for raster in rasters]
    known = [(size, i) for i, size in enumerate(sizes) if size is not None]
    positioned = [i for i, raster in enumerate(rasters) if raster.transform is not None]
    finest = min(known)[1] if known else next(iter(positioned), 0)
    placed = []
    for number, (raster, found) in enumerate(zip(rasters, windows, strict=True)):
        corners = np.concatenate([window.corners() for window in found])
        grid = corners if number == finest else _on_grid(rasters[finest], raster, corners)
        if grid is None:
            grid = corners + _APART * (number + 1)
        placed += [
            RasterWindow(raster, window, each)
            for window, each in zip(found, grid.reshape(-1, 4, 2), strict=True)
        ]
    return placed


def _on_grid(
    finest: Raster, raster: Raster, corners: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Corners on the grid of another raster; None if that is not known."""
    if None in (finest.transform, raster.transform) or (finest.crs is None) != (raster.crs is None):
        return None
    grid = finest.to_pixels(raster.to_ground(corners), raster.crs)
    return grid if (np.abs(grid) < _APART / 2).all() else None


def group(placed: Sequence[RasterWindow], block: int | None) -> list[str]:
    """Return the block of each window, as `row,column`.

    Args:
        placed: The windows.
        block: Windows along the side of a block; None for the largest of which there are enough.
    """
    centers = np.array([window.place.mean(axis=0) for window in placed])
    sides = np.array([np.ptp(window.place, axis=0) for window in placed])
    side = np.median(sides, axis=0)
    groups: list[str] = []
    for count, enough in (_BLOCKS if block is None else {block: 1}).items():
        found = np.floor(centers / (side * count)).astype(np.int64)
        groups = [f"{row},{column}" for column, row in found.tolist()]
        if len(set(groups)) >= enough:
            break
    return groups


def keep_apart(source: Source) -> None:
    """Leave out windows of `train` that overlap one of another split, or are within `source.gap`.

    Raises:
        InputError: If none would be left.
    """
    import shapely

    train = source.splits.get("train", [])
    others = [s for split, found in source.splits.items() if split != "train" for s in found]
    if not train or not others:
        return
    footprints = shapely.buffer(_footprints(train), source.gap - 0.5, join_style="mitre")
    near, _ = shapely.STRtree(_footprints(others)).query(footprints, predicate="intersects")
    left_out = set(near.tolist())
    if len(left_out) == len(train):
        raise InputError(
            f"{source.root}: every training window overlaps a window of another split, or is "
            f"closer than the gap of {source.gap:g} pixels: state other splits, or a smaller gap "
            "or block in [windows]"
        )
    if left_out:
        source.splits["train"] = [s for i, s in enumerate(train) if i not in left_out]
        source.notes.append(
            f"{len(left_out)} of {len(train)} training windows are left out: they overlap windows "
            f"of other splits{f', or are closer than {source.gap:g} pixels' * (source.gap > 0)}"
        )


def _footprints(samples: Sequence[Sample]) -> NDArray[np.object_]:
    import shapely

    parts = [sample.part for sample in samples]
    return np.asarray(
        shapely.polygons([part.place for part in parts if isinstance(part, RasterWindow)])
    )
