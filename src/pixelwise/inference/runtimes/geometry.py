"""Where the maps of a window lie in those of its picture: arithmetic for a `PartRuntime`.

Along each axis a window of length l begins at `start` in a picture of length L. A map that has N
positions for the picture and n for the window then has one position for each (L - l) / (N - n)
pixels, and that of the window begins at position start * (N - n) / (L - l) of the picture's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class MapSizes:
    """The maps that a pass over a picture resizes and pools, in the order of the pass.

    resized: size before, size after, and whether corners are aligned. pooled: size.
    """

    resized: tuple[tuple[Size, Size, bool], ...]
    pooled: tuple[Size, ...]


@dataclass(frozen=True)
class Place:
    """A window (start, length) along one axis of a picture of length `whole`."""

    start: int
    length: int
    whole: int

    def on_map(self, pixel: int, part: int, whole: int) -> float:
        """The position in the picture's map, of `whole` positions, on which a pixel of the picture
        lies that is a multiple of the step. part: positions of the window's map."""
        if self.whole == self.length:  # then the map's stride is not known, and is not needed
            return pixel * whole / self.whole
        return pixel * (whole - part) / (self.whole - self.length)


def resize_lines(
    picture: MapSizes, window: MapSizes, places: tuple[Place, Place]
) -> list[NDArray[np.float64] | None]:
    """For each resize (2, 2), vertical before horizontal: the scale and offset with which the
    positions of the result are read from the window's map. None where the usual are meant."""
    lines: list[NDArray[np.float64] | None] = []
    for whole, part in zip(picture.resized, window.resized, strict=True):
        wanted = np.empty((2, 2))
        usual = np.empty((2, 2))
        for axis, place in enumerate(places):
            (before, after, corners), (from_part, to_part, _) = whole, part
            origin = place.on_map(place.start, from_part[axis], before[axis])
            result = place.on_map(place.start, to_part[axis], after[axis])
            scale, offset = _line(before[axis], after[axis], corners)
            wanted[axis] = scale, offset + scale * result - origin
            usual[axis] = _line(from_part[axis], to_part[axis], corners)
        lines.append(None if np.allclose(wanted, usual, rtol=0, atol=1e-9) else wanted)
    return lines


def own_positions(
    picture: Size, window: Size, places: tuple[Place, Place], own: tuple[slice, slice]
) -> tuple[slice, slice]:
    """A share of the window, rows and columns in pixels from its corner, in its map.

    picture, window: sizes of the map. A share that ends at the picture's border has all positions
    up to the map's end.
    """
    found = []
    for whole, part, place, share in zip(picture, window, places, own, strict=True):
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
