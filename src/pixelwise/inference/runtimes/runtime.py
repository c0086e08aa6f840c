"""The contract of a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements


class Runtime(Protocol):
    """A network that is ready to run, normalization and upsampling included.

    name: as `--runtime` has it. Images are (H, W, C) of any size in units of 0..255,
    uint8 or float32: see `pixelwise.data.pixel_format`.
    """

    name: str

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(C, H, W) float32 scores before the softmax."""

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W) uint8 indices of the largest logits; where runtimes can, without the logits."""


@dataclass(frozen=True)
class View:
    """Where a tile lies in its image, and what it cannot see of it.

    size: of the image, (height, width). top, left: the tile's first row and column.
    pooled: the image's mean at each image pooling, (channels,) float32, in the order in which the
    network computes them; those that are known yet.
    """

    size: tuple[int, int]
    top: int
    left: int
    pooled: tuple[NDArray[np.float32], ...] = ()


class TilingRuntime(Runtime, Protocol):
    """A runtime that can compute a tile as part of its image, as `pixelwise.layers.forward_context` has it.

    Tiles keep the rules of `pixelwise.inference.tiling.tile_grid`. Two things are then other than in a
    pass over the tile alone:

    Every resize reads where that of the whole would. With maps of I and i positions before it, and
    O and o after it, in the whole and in the tile, along one axis of lengths L and l, the
    tile's maps begin at position a = start * (I - i) / (L - l) and b = start * (O - o) / (L - l)
    of the whole's (0 where L = l). Position p of the result is read at scale * p + offset of the
    tile's map, with its last position repeated beyond the border, where scale = I / O and offset
    = (b + 1/2) * scale - 1/2 - a; with corners aligned scale = (I - 1) / (O - 1) and offset =
    b * scale - a.

    Every image pooling gives the mean of the whole's map: for c5 (1, C5, h, w) a vector (C5,), in
    place of the mean over h and w, before the projection. It is found by a pass for each pooling,
    in which the tiles give the sums over their own shares.
    """

    @property
    def requirements(self) -> TilingRequirements:
        """Of the network; computed once."""

    def tile_logits(self, tile: Pixels, view: View) -> NDArray[np.float32]:
        """(h, w, C) to (classes, h, w), all means in `view.pooled`. The array is the caller's."""

    def tile_sums(
        self, tile: Pixels, view: View, own: tuple[slice, slice]
    ) -> tuple[NDArray[np.float64], int]:
        """The sum (channels,) over the tile's share of the map of the next pooling, the one after
        those in `view.pooled`, and of how many positions.

        own: the rows and columns of the tile that are its share, in pixels from its corner; they
        begin at multiples of the step, and end there or at the image's border.
        """


class ConcurrentRuntime(Runtime, Protocol):
    """A runtime that can also give each core an image of its own.

    Of many images that makes more a second than all cores at one after the other, since no core
    waits for the others at the end of each layer.

    concurrency: how many calls of `classify_concurrently` may run at the same time; 1 where there
    is one core only.
    """

    concurrency: int

    def classify_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """What `classify` gives, from any thread. Each call that runs takes `classify`'s memory."""


def supports_tiling(runtime: Runtime) -> TypeGuard[TilingRuntime]:
    """Whether a runtime is a `TilingRuntime`."""
    return hasattr(runtime, "tile_logits")


def runs_concurrently(runtime: Runtime) -> TypeGuard[ConcurrentRuntime]:
    """Whether a runtime is a `ConcurrentRuntime`."""
    return hasattr(runtime, "classify_concurrently")
