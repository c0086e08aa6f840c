"""Where the maps of a tile lie in those of its image: arithmetic for a `TilingRuntime`.

Along each axis a tile of length l begins at `start` in an image of length L. A map that has N
positions for the image and n for the tile then has one position for each (L - l) / (N - n)
pixels, and that of the tile begins at position start * (N - n) / (L - l) of the image's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelwise.inference.runtimes.runtime import View

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class MapSizes:
    """The maps that a pass over an image resizes and pools, in the order of the pass.

    resized: size before, size after, and whether corners are aligned. pooled: size.
    """

    resized: tuple[tuple[Size, Size, bool], ...]
    pooled: tuple[Size, ...]


@dataclass(frozen=True)
class Place:
    """A tile (start, length) along one axis of an image of length `whole`."""

    start: int
    length: int
    whole: int

    def on_map(self, pixel: int, part: int, whole: int) -> float:
        """The position in the image's map, of `whole` positions, on which a pixel of the image
        lies that is a multiple of the step. part: positions of the tile's map."""
        if self.whole == self.length:  # then the map's stride is not known, and is not needed
            return pixel * whole / self.whole
        return pixel * (whole - part) / (self.whole - self.length)


class Geometry:
    """Where tiles lie in the maps of their images.

    trace: tells the maps of a network for an image of (height, width).
    """

    def __init__(self, trace: Callable[[Size], MapSizes]) -> None:
        self._trace = trace
        self._traced: dict[Size, MapSizes] = {}

    def sizes(self, size: Size) -> MapSizes:
        """The maps of a pass over an image of this size."""
        if size not in self._traced:
            self._traced[size] = self._trace(size)
        return self._traced[size]

    def lines(self, tile: Size, view: View) -> list[NDArray[np.float64]]:
        """For each resize (2, 2), vertical before horizontal: the scale and offset with which the
        positions of the result are read from the map of a tile of this size."""
        return resize_lines(self.sizes(view.size), self.sizes(tile), _places(tile, view))

    def share(self, tile: Size, view: View, own: tuple[slice, slice]) -> tuple[slice, slice]:
        """A share of the tile, rows and columns in pixels from its corner, in its map of the
        next pooling, the one after those in `view.pooled`."""
        number = len(view.pooled)
        image, part = self.sizes(view.size).pooled[number], self.sizes(tile).pooled[number]
        return own_positions(image, part, _places(tile, view), own)


def _places(tile: Size, view: View) -> tuple[Place, Place]:
    vertical = Place(view.top, tile[0], view.size[0])
    return vertical, Place(view.left, tile[1], view.size[1])


def resize_lines(
    image: MapSizes, tile: MapSizes, places: tuple[Place, Place]
) -> list[NDArray[np.float64]]:
    """What `Geometry.lines` gives, of maps of these sizes."""
    lines = []
    for whole, part in zip(image.resized, tile.resized, strict=True):
        found = np.empty((2, 2))
        for axis, place in enumerate(places):
            (before, after, corners), (from_part, to_part, _) = whole, part
            origin = place.on_map(place.start, from_part[axis], before[axis])
            result = place.on_map(place.start, to_part[axis], after[axis])
            scale, offset = _line(before[axis], after[axis], corners)
            found[axis] = scale, offset + scale * result - origin
        lines.append(found)
    return lines


def reads(
    line: NDArray[np.float64], *, before: int, after: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Where a resize from `before` to `after` positions reads along one axis.

    line: (scale, offset). Each position of the result lies between position `index` (after,) and
    the next, by the part (0..1) `part` (after,). Beyond the map its last position is repeated.
    """
    scale, offset = line
    place = np.clip(np.arange(after) * scale + offset, 0, before - 1)
    index = np.floor(place).astype(np.int32)
    return index, (place - index).astype(np.float32)


def own_positions(
    image: Size, tile: Size, places: tuple[Place, Place], own: tuple[slice, slice]
) -> tuple[slice, slice]:
    """A share of the tile, rows and columns in pixels from its corner, in its map.

    image, tile: sizes of the map. A share that ends at the image's border has all positions
    up to the map's end.
    """
    found = []
    for whole, part, place, share in zip(image, tile, places, own, strict=True):
        origin = round(place.on_map(place.start, part, whole))
        first = round(place.on_map(place.start + share.start, part, whole)) - origin
        at_end = place.start + share.stop == place.whole
        last = (
            part if at_end else round(place.on_map(place.start + share.stop, part, whole)) - origin
        )
        found.append(slice(first, last))
    rows, columns = found
    return rows, columns


def _line(before: int, after: int, corners: bool) -> tuple[float, float]:
    """Scale and offset of a resize from `before` to `after` positions."""
    if corners:
        return ((before - 1) / (after - 1) if after > 1 else 0.0), 0.0
    scale = before / after
    return scale, scale / 2 - 0.5
