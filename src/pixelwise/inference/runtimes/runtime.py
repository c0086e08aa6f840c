"""The protocols that runtimes implement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements


class Runtime(Protocol):
    """A network that is ready to run, including normalization and upsampling.

    Images are (H, W, C) arrays of any size with values in 0..255, uint8 or float32; see
    `pixelwise.data.pixel_format`. Methods may be called from any threads at the same time and give
    the same results as one after the other. Runtimes can be pickled and copied.

    Attributes:
        name: Name of the runtime, as in `--runtime`.
    """

    name: str

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of an image."""

    def predict_labels(self, image: Pixels) -> NDArray[np.uint8]:
        """Return the class indices (H, W) of an image, without computing logits if possible."""


@dataclass(frozen=True)
class TileView:
    """The position of a tile in its image, and the image-wide means that the tile needs.

    Attributes:
        size: Height and width of the image.
        top: First row of the tile.
        left: First column of the tile.
        pooled: Mean (channels,) over the whole image at each image pooling, in the order in which
            the network computes them, as far as they are known.
    """

    size: tuple[int, int]
    top: int
    left: int
    pooled: tuple[NDArray[np.float32], ...] = ()


class TilingRuntime(Runtime, Protocol):
    """A runtime that evaluates a tile as a crop of its image, see `layers.forward_context`.

    Tiles obey the rules of `pixelwise.inference.tiling.tile_grid`. Evaluating a tile differs in two
    ways from evaluating the tile as a separate image.

    Every resize samples where the resize of the whole image would. Consider one axis, with image
    length L and tile length l. Let the feature map before the resize have I positions for the image
    and i for the tile, and the map after it O and o. The tile's maps begin at position
    a = start * (I - i) / (L - l) and b = start * (O - o) / (L - l) of the image's maps (0 if
    L = l). Position p of the result is sampled at scale * p + offset of the tile's map, which is
    extended beyond its border by repeating the last position. Here scale = I / O and
    offset = (b + 1/2) * scale - 1/2 - a; with aligned corners scale = (I - 1) / (O - 1) and
    offset = b * scale - a.

    Every image pooling returns the mean over the whole image: for c5 of shape (1, C5, h, w), a
    vector (C5,) replaces the mean over h and w, before the projection. One pass over all tiles per
    pooling finds the mean; in this pass each tile returns the sums over the positions it owns.
    """

    @property
    def requirements(self) -> TilingRequirements:
        """What the network requires of tiles. Computed once."""

    def tile_logits(self, tile: Pixels, view: TileView) -> NDArray[np.float32]:
        """Return the logits (classes, h, w) of a tile (h, w, C).

        `view.pooled` must hold all means. The caller may modify the returned array.
        """

    def tile_sums(
        self, tile: Pixels, view: TileView, own: tuple[slice, slice]
    ) -> tuple[NDArray[np.float64], int]:
        """Sum a tile's own positions of the feature map at the next image pooling.

        The next pooling is the one after those in `view.pooled`.

        Args:
            tile: Pixels (h, w, C) of the tile.
            view: Position of the tile in the image.
            own: Rows and columns that no other tile counts, in pixels from the tile's corner. They
                begin at multiples of the step and end at one or at the image's border.

        Returns:
            The sums (channels,) and the number of positions.
        """


class ConcurrentRuntime(Runtime, Protocol):
    """A runtime that can also process several images in parallel, one per core.

    This gives a higher throughput than all cores working on one image, because no core waits for
    the others at the end of each layer.

    Attributes:
        concurrency: How many calls of `predict_labels_concurrently` may run at the same time; 1 on
            a machine with a single core.
    """

    concurrency: int

    def predict_labels_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """Return what `predict_labels` returns. May be called from any thread.

        Each running call needs as much memory as `predict_labels`.
        """


def supports_tiling(runtime: Runtime) -> TypeGuard[TilingRuntime]:
    """Return whether a runtime is a `TilingRuntime`, and its network supports tiles."""
    return hasattr(runtime, "tile_logits") and bool(getattr(runtime, "tiles_match", True))


def runs_concurrently(runtime: Runtime) -> TypeGuard[ConcurrentRuntime]:
    """Return whether a runtime is a `ConcurrentRuntime`."""
    return hasattr(runtime, "predict_labels_concurrently")
