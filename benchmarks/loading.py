"""Compare images/s of loading and of training: the slower one limits a run.

    python benchmarks/loading.py

Generated scenes of 360x480 as JPEG and PNG, the default recipe's augmentation to 352x480, batch 8.
Training is DeepLabV3+ on MobileNetV2, as in `pixelwise train`. On a CPU, a run loads in the process
that trains, between steps; with a GPU, in separate processes.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
from training import BATCH, HEIGHT, WIDTH, as_run

IMAGES, STEPS = 64, 8


def from_cache() -> tuple[harness.Work, int]:
    """Augment and collate images that were decoded during the dataset check."""
    return _batches(workers=0, cache_bytes=2 << 30)


def from_files() -> tuple[harness.Work, int]:
    """Decode every image again, as if the images do not fit the cache."""
    return _batches(workers=0, cache_bytes=0)


def from_files_by_workers() -> tuple[harness.Work, int]:
    """The same in two processes, as with a GPU."""
    return _batches(workers=2, cache_bytes=0)


def _batches(*, workers: int, cache_bytes: int) -> tuple[harness.Work, int]:
    import atexit

    import numpy as np
    from PIL import Image

    from pixelwise.data.dataset import open_dataset
    from pixelwise.data.scenes import write_scenes
    from pixelwise.recipes.schema import ResolvedAugmentationRecipe
    from pixelwise.training.loading import (
        AugmentedSplit,
        BatchOrder,
        make_augmentation,
        make_loader,
    )
    from pixelwise.weights.normalization import IMAGENET

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_scenes(folder, train=BATCH, val=1, height=360, width=480)
    for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
        for path in sorted((folder / kind / "train").iterdir()):
            for copy in range(IMAGES // BATCH):
                target = path.with_name(f"{path.stem}_{copy}{suffix}")
                if suffix == path.suffix:
                    shutil.copyfile(path, target)
                else:
                    Image.open(path).save(target, quality=95)
            path.unlink()
    data = open_dataset(folder, splits=("train",), cache_bytes=cache_bytes)
    recipe = ResolvedAugmentationRecipe(crop=(HEIGHT, WIDTH))
    augmentation = make_augmentation(recipe, fill=IMAGENET.fill(), counts=np.ones(1, np.int64))
    order = BatchOrder(IMAGES, batch_size=BATCH, seed=0)
    loader = make_loader(
        AugmentedSplit(data, "train", augmentation, seed=0), order, workers=workers
    )
    batches = _endless(loader, order)
    return lambda: next(batches), BATCH


def _endless(loader: Any, order: Any) -> Iterator[object]:
    for epoch in itertools.count(1):
        order.begin(epoch)
        yield from loader


if __name__ == "__main__":
    harness.main(
        f"Loading and training, batch {BATCH} of {HEIGHT}x{WIDTH}",
        {
            "training steps": as_run,
            "loading, cached images": from_cache,
            "loading from JPEG and PNG": from_files,
            "loading from JPEG and PNG, 2 processes": from_files_by_workers,
        },
        units=STEPS,
        peers={},
    )
    harness.finish()
