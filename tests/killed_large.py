"""Predict large images in a process that kills itself. Not a test: test_large_resume.py starts it.

python killed_large.py IMAGES OUT PLACE TIMES: the process dies when it reaches PLACE for the
TIMES-th time; with "-" it survives.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dying import dying
from killed_prediction import CLASSES
from pixelwise.inference import InferenceOptions, Predictor
from pixelwise.inference.batch import folder_journal, large_images, tile_progress_file
from pixelwise.inference.batch.large_images import predict_large_images
from pixelwise.inference.runtimes import TileView
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements

SIDE = 200


class PooledBrightness:
    """A trivial network that supports tiling: brighter than the image's mean, or darker."""

    name = "pooled-brightness"
    requirements = TilingRequirements(
        step=8,
        receptive_radius=20,
        pooled_receptive_radius=8,
        poolings=1,
        bytes_per_pixel=1e6,  # never one pass
        label_bytes_per_pixel=1e6,
    )

    def tile_sums(
        self, tile: NDArray[np.uint8], view: TileView, core: tuple[slice, slice]
    ) -> tuple[NDArray[np.float64], int]:
        pixels = tile[core][..., :1]
        return pixels.sum(axis=(0, 1), dtype=np.float64), pixels.shape[0] * pixels.shape[1]

    def tile_logits(self, tile: NDArray[np.uint8], view: TileView) -> NDArray[np.float32]:
        brighter = tile[..., 0] - view.pooled[0]
        return np.stack([-brighter, np.full_like(brighter, 20), brighter])

    def logits(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise AssertionError("too large for one pass")

    predict_labels: Any = logits


def arm(owner: Any, name: str, *, times: int, after: bool = False) -> None:
    setattr(owner, name, dying(getattr(owner, name), times=times, after=after))


PLACES: dict[str, Callable[[int], None]] = {
    "tile": lambda n: arm(PooledBrightness, "tile_logits", times=3 * n),
    "sums": lambda n: arm(PooledBrightness, "tile_sums", times=4 * n),
    "beginning": lambda n: arm(tile_progress_file, "append_whole", times=1),
    "before_saving": lambda n: arm(tile_progress_file.TileProgressFile, "_append", times=2 * n),
    "during_saving": lambda n: arm(os, "fsync", times=2 * n),
    "saved": lambda n: arm(tile_progress_file.TileProgressFile, "_append", times=2 * n, after=True),
    "mask_written": lambda n: arm(large_images, "_write_mask", times=n, after=True),
    "line_but_not_renamed": lambda n: arm(folder_journal.Journal, "_append", times=n, after=True),
    "renamed": lambda n: arm(folder_journal, "flush_folder", times=n),
    "finished": lambda n: arm(folder_journal.Journal, "finish", times=1),
}


def main(images: str, out: str, place: str, times: str) -> None:
    if place in PLACES:
        PLACES[place](int(times))
    predictor = Predictor(PooledBrightness(), CLASSES, options=InferenceOptions(tile=SIDE))
    predict_large_images(predictor, images, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
