"""Writing masks that are larger than memory: tiled, compressed palette TIFF."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.inference.batch.tiff_source import GDAL_NODATA

TILE = 512
CLASSIC_BYTES = 3 << 30  # BigTIFF above this, because a classic TIFF ends at 4 GiB
ASCII = 2  # the type of a tag


def write_mask_tiff(
    path: Path,
    strips: Iterable[NDArray[np.uint8]],
    *,
    size: tuple[int, int],
    palette: bytes,
    nodata: int | None,
    georeference: Sequence[tuple[Any, ...]] = (),
) -> None:
    """Write a mask with only a few rows of tiles in memory.

    Args:
        path: The file.
        strips: The mask in strips (any height, width) from the top.
        size: (height, width) of the mask.
        palette: 768 bytes of RGB.
        nodata: The mask value of pixels without data, for GDAL's tag, or None.
        georeference: Tags, as in `TiffSource.georeference`.

    Raises:
        OSError: If the file cannot be written.
    """
    import tifffile

    colors = np.frombuffer(palette, np.uint8).reshape(256, 3).T.astype(np.uint16) * 257
    tags = list(georeference)
    if nodata is not None:
        text = str(nodata)
        tags.append((GDAL_NODATA, ASCII, len(text) + 1, text, True))
    big = size[0] * size[1] > CLASSIC_BYTES
    with path.open("wb+") as stream, tifffile.TiffWriter(stream, bigtiff=big) as writer:
        writer.write(
            _tiles(strips, width=size[1]),
            shape=size,
            dtype=np.uint8,
            tile=(TILE, TILE),
            photometric="palette",
            colormap=colors,
            compression="zlib",
            compressionargs={"level": 6},
            extratags=tags,
            metadata=None,
            software=False,
            maxworkers=1,
        )


def _tiles(strips: Iterable[NDArray[np.uint8]], *, width: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles row by row, padded with zeros at the lower and right border."""
    rest = np.empty((0, width), np.uint8)
    for strip in strips:
        rest = np.concatenate([rest, strip])
        while len(rest) >= TILE:
            yield from _row_of_tiles(rest[:TILE])
            rest = rest[TILE:]
    if len(rest):
        yield from _row_of_tiles(rest)


def _row_of_tiles(rows: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for left in range(0, rows.shape[1], TILE):
        tile = rows[:, left : left + TILE]
        yield np.pad(tile, [(0, TILE - side) for side in tile.shape])
