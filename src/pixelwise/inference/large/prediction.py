"""From a TIFF file to the TIFF file of its mask, one window in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.files import atomic
from pixelwise.inference.anysize import NONE, AnySize, Progress
from pixelwise.inference.large.mask import write_mask_tiff
from pixelwise.inference.large.tiff import TiffPicture
from pixelwise.inference.large.trail import FileTrail
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.windows import Block

MEMORY = 9 << 27
"""Bytes that one pass may take, 1.1 GiB: with PyTorch, the tiles of the picture, two windows'
logits and the rows of the mask the process stays below 2 GiB."""


def predict_large(
    predictor: Predictor, path: Path, out: Path, *, progress: Progress | None = None
) -> None:
    """Write the mask of a TIFF file of any size as `out`, a tiled palette TIFF.

    The mask has the values of the training masks and the picture's georeference. Pixels without
    data, by the picture's nodata value or its alpha, get the ignored value, which is the mask's
    nodata value, too. Memory is bounded by the window, and some rows of the mask; a picture by
    strips needs a window's rows of it besides. What stands under `out` is whole or as it was.

    progress: called with the windows that are done and all of them.
    Raises InputError for a picture that cannot be read by windows, a file that cannot be written,
    and a predictor with a CRF or several looks, which need the whole picture.
    """
    check_large(predictor)
    with TiffPicture.open(path, predictor.pixels) as picture:
        check_other(out, path)
        with atomic(out) as side:
            write_mask(predictor, picture, side, progress=progress)


def write_mask(
    predictor: Predictor,
    picture: TiffPicture,
    out: Path,
    *,
    trail: FileTrail | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the mask of an open picture. `out` is left half-written where it fails.

    trail: where an earlier call for the same ended, and this one goes on. Raises InputError for a
    picture that is damaged, OSError where `out` or the trail cannot be written.
    """
    network = AnySize(predictor.runtime, window=predictor.network.window, memory=MEMORY)
    classes = predictor.classes
    empty = classes.file_ignore
    sparse = picture.nodata is not None or picture.alpha

    def masks() -> Iterator[tuple[Block, NDArray[np.uint8]]]:
        for block in network.blocks(picture, progress=progress, trail=trail):
            mask = classes.to_value(block.scores.argmax(axis=0).astype(np.uint8))
            missing = picture.missing(block.top, block.left, *mask.shape)
            if missing is not None:
                mask[missing] = empty
            yield block, mask

    strips = _strips(masks(), width=picture.size[1])
    write_mask_tiff(
        out,
        strips if trail is None else trail.through(strips),
        size=picture.size,
        palette=classes.palette(),
        nodata=empty if sparse else None,
        georeference=picture.georeference,
    )


def check_other(out: Path, path: Path) -> None:
    """Raise InputError where the mask would replace its picture."""
    if out.exists() and out.samefile(path):
        raise InputError(f"{out}: is the picture itself: choose another --out")


def check_large(predictor: Predictor) -> None:
    """Raise InputError for a predictor that needs the whole picture."""
    for wanted, option in (
        (predictor.crf is not None, "--crf"),
        (not predictor.ensemble.single, "--scales or --flip"),
        (predictor.network.window == NONE, "--window none"),
    ):
        if wanted:
            raise InputError(
                f"{option}: needs the whole picture in memory, which --large does without: leave "
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
