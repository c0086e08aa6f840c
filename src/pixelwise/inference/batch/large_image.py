"""From a TIFF file to the TIFF file of its mask, one tile in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.file_io import atomic
from pixelwise.inference.batch.mask_tiff import write_mask_tiff
from pixelwise.inference.batch.tiff_source import TiffSource
from pixelwise.inference.batch.tile_progress_file import TileProgressFile
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.tiling.tile_grid import Block
from pixelwise.inference.tiling.tiled_model import NONE, Progress, TiledModel

MEMORY = 9 << 27
"""Bytes that one pass may take, 1.1 GiB: with PyTorch, the tiles of the image, two tiles'
logits and the rows of the mask the process stays below 2 GiB."""


def predict_large(
    predictor: Predictor, path: Path, out: Path, *, progress: Progress | None = None
) -> None:
    """Write the mask of a TIFF file of any size as `out`, a tiled palette TIFF.

    The mask has the values of the training masks and the image's georeference. Pixels without
    data, by the image's nodata value or its alpha, get the ignored value, which is the mask's
    nodata value, too. Memory is bounded by the tile, and some rows of the mask; an image by
    strips needs a tile's rows of it besides. What stands under `out` is whole or as it was.

    progress: called with the tiles that are done and all of them.
    Raises InputError for an image that cannot be read by tiles, a file that cannot be written,
    and a predictor with a CRF or several looks, which need the whole image.
    """
    check_large(predictor)
    with TiffSource.open(path, predictor.pixels) as image:
        check_other(out, path)
        with atomic(out) as side:
            write_mask(predictor, image, side, progress=progress)


def write_mask(
    predictor: Predictor,
    image: TiffSource,
    out: Path,
    *,
    tile_progress: TileProgressFile | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the mask of an open image. `out` is left half-written where it fails.

    trail: where an earlier call for the same ended, and this one goes on. Raises InputError for a
    image that is damaged, OSError where `out` or the trail cannot be written.
    """
    network = TiledModel(predictor.runtime, tile=predictor.network.tile, memory=MEMORY)
    classes = predictor.classes
    empty = classes.file_ignore
    sparse = image.nodata is not None or image.alpha

    def masks() -> Iterator[tuple[Block, NDArray[np.uint8]]]:
        for block in network.blocks(image, progress=progress, tile_progress=tile_progress):
            mask = classes.to_value(block.scores.argmax(axis=0).astype(np.uint8))
            missing = image.missing(block.top, block.left, *mask.shape)
            if missing is not None:
                mask[missing] = empty
            yield block, mask

    strips = _strips(masks(), width=image.size[1])
    write_mask_tiff(
        out,
        strips if tile_progress is None else tile_progress.through(strips),
        size=image.size,
        palette=classes.palette(),
        nodata=empty if sparse else None,
        georeference=image.georeference,
    )


def check_other(out: Path, path: Path) -> None:
    """Raise InputError where the mask would replace its image."""
    if out.exists() and out.samefile(path):
        raise InputError(f"{out}: is the image itself: choose another --out")


def check_large(predictor: Predictor) -> None:
    """Raise InputError for a predictor that needs the whole image."""
    for wanted, option in (
        (predictor.crf is not None, "--crf"),
        (not predictor.tta.single, "--scales or --flip"),
        (predictor.network.tile == NONE, "--tile none"),
    ):
        if wanted:
            raise InputError(
                f"{option}: needs the whole image in memory, which --large does without: leave "
                "one of them out"
            )


def _strips(
    masks: Iterator[tuple[Block, NDArray[np.uint8]]], *, width: int
) -> Iterator[NDArray[np.uint8]]:
    """The blocks that lie side by side put together, (rows, width)."""
    strip = np.empty((0, width), np.uint8)
    for block, mask in masks:
        if block.left == 0:
            strip = np.empty((len(mask), width), np.uint8)
        strip[:, block.left : block.left + mask.shape[1]] = mask
        if block.left + mask.shape[1] == width:
            yield strip
