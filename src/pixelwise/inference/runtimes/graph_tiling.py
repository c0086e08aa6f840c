"""What runtimes share that compute tiles as parts of their image by a changed graph.

In such a graph each resize is two lookups and a mixture along either axis, with where to look as
inputs; each image pooling is an input with the mean of the whole image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.inference.runtimes.runtime import View
from pixelwise.inference.runtimes.tile_geometry import Geometry, MapSizes, Size, reads

SPATIAL = (2, 3)  # the axes of height and width in (B, C, H, W)
Inputs = dict[str, NDArray[Any]]


class Graphs(Protocol):
    """The changed graphs of a network."""

    @property
    def resizes(self) -> list[str]:
        """Their names, in the order of the pass."""

    @property
    def poolings(self) -> list[str]:
        """The same of the image poolings."""

    def sizes(self, size: Size) -> MapSizes:
        """The maps that a pass over an image of `size` resizes and pools. Nothing is computed."""


class GraphTiling(ABC):
    """The methods of a `TilingRuntime`, for a runtime of such graphs."""

    _graphs: Graphs
    _geometry: Geometry

    @abstractmethod
    def _infer_tile(self, size: Size, pooling: int | None, given: Inputs) -> NDArray[Any]:
        """What the graph for tiles of `size` gives: the logits, or the map of a pooling,
        (1, C, h, w); good until the next call. given: more than it may ask for."""

    def tile_logits(self, tile: Pixels, view: View) -> NDArray[np.float32]:
        """(h, w, N) to (C, h, w), as `TilingRuntime` has it."""
        found: NDArray[np.float32] = self._run_tile(tile, view, None)[0].copy()
        return found

    def tile_sums(
        self, tile: Pixels, view: View, own: tuple[slice, slice]
    ) -> tuple[NDArray[np.float64], int]:
        """The sums of the tile's share of a pooled map, as `TilingRuntime` has it."""
        rows, columns = self._geometry.share(size_of(tile), view, own)
        share = self._run_tile(tile, view, len(view.pooled))[0, :, rows, columns]
        sums: NDArray[np.float64] = share.sum(axis=(1, 2), dtype=np.float64)
        return sums, share.shape[1] * share.shape[2]

    def _run_tile(self, tile: Pixels, view: View, pooling: int | None) -> NDArray[Any]:
        size = size_of(tile)
        given = _where_to_look(self._graphs.resizes, self._geometry, size, view)
        for name, mean in zip(self._graphs.poolings, view.pooled, strict=False):
            given[name] = mean.reshape(1, -1, 1, 1)
        given["image"] = np.ascontiguousarray(tile)[None]
        return self._infer_tile(size, pooling, given)


def lookup(resize: str, side: int) -> tuple[str, str, str]:
    """The names of the inputs for the vertical (0) or horizontal (1) of a resize to n positions:
    where to look before and after each, int32 (n,), and how far it lies between the two, float32 in
    0..1, of shape (1, 1, n, 1) or (1, 1, 1, n)."""
    return f"{resize} before {side}", f"{resize} after {side}", f"{resize} part {side}"


def size_of(image: Pixels) -> Size:
    return image.shape[0], image.shape[1]


def _where_to_look(resizes: list[str], geometry: Geometry, size: Size, view: View) -> Inputs:
    """The inputs of all resizes, for a tile of `size`."""
    found: Inputs = {}
    maps, lines = geometry.sizes(size).resized, geometry.lines(size, view)
    for resize, (before, after, _), both in zip(resizes, maps, lines, strict=True):
        for side, (axis, line) in enumerate(zip(SPATIAL, both, strict=True)):
            index, part = reads(line, before=before[side], after=after[side])
            following = np.minimum(index + 1, np.int32(before[side] - 1))
            part = np.expand_dims(part, tuple(at for at in range(4) if at != axis))
            found |= zip(lookup(resize, side), (index, following, part), strict=True)
    return found
