"""Tiling for runtimes that modify a graph so that it evaluates tiles as crops of their image.

In such a graph each resize becomes two gathers and a linear interpolation per axis, with the
sampled positions as inputs, and each image pooling becomes an input with the image-wide mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.inference.runtimes.forking import ProcessLock
from pixelwise.inference.runtimes.runtime import TileView
from pixelwise.inference.runtimes.tile_geometry import (
    MapSizes,
    Size,
    TileGeometry,
    sample_positions,
    size_of,
)

SPATIAL_AXES = (2, 3)  # height and width in (B, C, H, W)
Inputs = dict[str, NDArray[Any]]


class TileGraphs(Protocol):
    """The modified graphs of a network."""

    @property
    def resizes(self) -> list[str]:
        """Names of the resizes, in order of computation."""

    @property
    def poolings(self) -> list[str]:
        """Names of the image poolings, in order of computation."""

    def sizes(self, size: Size) -> MapSizes:
        """Return the sizes of the resized and pooled maps for an image, without computing them."""


class GraphTiling(ABC):
    """Implement the methods of a `TilingRuntime` on modified graphs."""

    _graphs: TileGraphs
    _geometry: TileGeometry

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._one_tile_at_a_time = ProcessLock()

    @abstractmethod
    def _infer_tile(self, size: Size, pooling: int | None, inputs: Inputs) -> NDArray[Any]:
        """Run the graph for tiles of `size`.

        Args:
            size: Height and width of the tile.
            pooling: Number of the image pooling whose input is returned, None for the logits.
            inputs: Arrays by input name; may hold more than the graph needs.

        Returns:
            An array (1, C, h, w) that is valid until the next call. There is one call at a time.
        """

    def tile_logits(self, tile: Pixels, view: TileView) -> NDArray[np.float32]:
        """Return the logits (C, h, w) of a tile, see `TilingRuntime`."""
        with self._one_tile_at_a_time:
            logits: NDArray[np.float32] = self._run_tile(tile, view, None)[0].copy()
        return logits

    def tile_sums(
        self, tile: Pixels, view: TileView, own: tuple[slice, slice]
    ) -> tuple[NDArray[np.float64], int]:
        """Sum a tile's own positions of the next pooled map, see `TilingRuntime`."""
        with self._one_tile_at_a_time:
            rows, columns = self._geometry.own_positions(size_of(tile), view, own)
            features = self._run_tile(tile, view, len(view.pooled))[0, :, rows, columns]
            sums: NDArray[np.float64] = features.sum(axis=(1, 2), dtype=np.float64)
        return sums, features.shape[1] * features.shape[2]

    def _run_tile(self, tile: Pixels, view: TileView, pooling: int | None) -> NDArray[Any]:
        size = size_of(tile)
        inputs: Inputs = {"image": np.ascontiguousarray(tile)[None]}
        maps = self._geometry.sizes(size).resized
        transforms = self._geometry.resize_transforms(size, view)
        resizes = zip(self._graphs.resizes, maps, transforms, strict=True)
        for resize, (before, after, _), transform in resizes:
            for axis in (0, 1):
                lower, upper, weight = sample_positions(transform[axis], before[axis], after[axis])
                other_axes = tuple(i for i in range(4) if i != SPATIAL_AXES[axis])
                values = lower, upper, np.expand_dims(weight, other_axes)
                inputs |= zip(resize_input_names(resize, axis), values, strict=True)
        for name, mean in zip(self._graphs.poolings, view.pooled, strict=False):
            inputs[name] = mean.reshape(1, -1, 1, 1)
        return self._infer_tile(size, pooling, inputs)


def resize_input_names(resize: str, axis: int) -> tuple[str, str, str]:
    """Return the names of a resize's inputs along the vertical (0) or horizontal (1) axis.

    For n result positions these are the lower and the upper neighbor, int32 (n,), and the
    interpolation weight of the upper one, float32 in 0..1 of shape (1, 1, n, 1) or (1, 1, 1, n).
    """
    return f"{resize} lower {axis}", f"{resize} upper {axis}", f"{resize} weight {axis}"
