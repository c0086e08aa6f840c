"""Locate a tile's feature maps in its image's feature maps: arithmetic for a `TilingRuntime`.

Along each axis a tile of length l begins at `start` in an image of length L. A feature map with N
positions for the image and n for the tile has one position per (L - l) / (N - n) pixels, and the
tile's map begins at position start * (N - n) / (L - l) of the image's map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.inference.runtimes.runtime import TileView

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class MapSizes:
    """Sizes of the feature maps that a network resizes and pools, in order of computation.

    Attributes:
        resized: Size before, size after and whether corners are aligned, per resize.
        pooled: Size before each image pooling.
    """

    resized: tuple[tuple[Size, Size, bool], ...]
    pooled: tuple[Size, ...]


@dataclass(frozen=True)
class TilePosition:
    """The position of a tile in its image along one axis, in pixels."""

    start: int
    length: int
    image_length: int

    def on_map(self, pixel: int, tile_map: int, image_map: int) -> float:
        """Return the position of an image pixel in the image's feature map.

        Args:
            pixel: Pixel of the image, a multiple of the step.
            tile_map: Length of the tile's feature map.
            image_map: Length of the image's feature map.
        """
        if self.image_length == self.length:  # the map's stride is then unknown and not needed
            return pixel * image_map / self.image_length
        return pixel * (image_map - tile_map) / (self.image_length - self.length)


class TileGeometry:
    """Locate the feature maps of tiles in the feature maps of their images.

    Args:
        trace: Returns the network's map sizes for an image of a given size.
    """

    def __init__(self, trace: Callable[[Size], MapSizes]) -> None:
        self._trace = trace
        self._traced: dict[Size, MapSizes] = {}

    def sizes(self, size: Size) -> MapSizes:
        """Return the map sizes for an image of this size."""
        if size not in self._traced:
            self._traced[size] = self._trace(size)
        return self._traced[size]

    def resize_transforms(self, tile: Size, view: TileView) -> list[NDArray[np.float64]]:
        """Return the sampling transform of each resize of a tile.

        Returns:
            For each resize an array (2, 2) with rows (scale, offset), vertical before horizontal:
            position p of the result is sampled at scale * p + offset of the tile's feature map.
        """
        transforms = []
        image_maps, tile_maps = self.sizes(view.size).resized, self.sizes(tile).resized
        for image_resize, tile_resize in zip(image_maps, tile_maps, strict=True):
            (image_from, image_to, corners), (tile_from, tile_to, _) = image_resize, tile_resize
            transform = np.empty((2, 2))
            for axis, position in enumerate(_tile_positions(tile, view)):
                source = position.on_map(position.start, tile_from[axis], image_from[axis])
                result = position.on_map(position.start, tile_to[axis], image_to[axis])
                scale, offset = _image_transform(image_from[axis], image_to[axis], corners)
                transform[axis] = scale, offset + scale * result - source
            transforms.append(transform)
        return transforms

    def own_positions(
        self, tile: Size, view: TileView, own: tuple[slice, slice]
    ) -> tuple[slice, slice]:
        """Convert a tile's own rows and columns to positions in the next pooled feature map.

        The next pooling is the one after those in `view.pooled`. A range that ends at the image's
        border includes all positions up to the map's end.

        Args:
            tile: Size of the tile.
            view: Position of the tile in the image.
            own: Rows and columns in pixels from the tile's corner.
        """
        pooling = len(view.pooled)
        tile_map, image_map = (self.sizes(size).pooled[pooling] for size in (tile, view.size))
        maps = zip(tile_map, image_map, strict=True)
        ranges = []
        for lengths, position, pixels in zip(maps, _tile_positions(tile, view), own, strict=True):
            start, first, end = (
                round(position.on_map(position.start + pixel, *lengths))
                for pixel in (0, pixels.start, pixels.stop)
            )
            if position.start + pixels.stop == position.image_length:
                end = start + lengths[0]
            ranges.append(slice(first - start, end - start))
        rows, columns = ranges
        return rows, columns


def size_of(image: Pixels) -> Size:
    return image.shape[0], image.shape[1]


def _tile_positions(tile: Size, view: TileView) -> tuple[TilePosition, TilePosition]:
    vertical = TilePosition(view.top, tile[0], view.size[0])
    return vertical, TilePosition(view.left, tile[1], view.size[1])


def sample_positions(
    transform: NDArray[np.float64], before: int, after: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Return where a resize from `before` to `after` positions samples along one axis.

    Args:
        transform: Scale and offset.
        before: Length of the map before the resize. Its last position is repeated beyond its end.
        after: Length of the map after the resize.

    Returns:
        For each result position the lower neighbor, the upper neighbor and the interpolation weight
        of the upper neighbor in 0..1, each of shape (after,).
    """
    scale, offset = transform
    sampled = np.clip(np.arange(after) * scale + offset, 0, before - 1)
    lower = np.floor(sampled).astype(np.int32)
    upper = np.minimum(lower + 1, np.int32(before - 1))
    return lower, upper, (sampled - lower).astype(np.float32)


def _image_transform(before: int, after: int, corners: bool) -> tuple[float, float]:
    """Return scale and offset of a resize over the whole image."""
    if corners:
        return ((before - 1) / (after - 1) if after > 1 else 0.0), 0.0
    scale = before / after
    return scale, scale / 2 - 0.5
