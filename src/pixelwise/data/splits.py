"""Draw a validation split for a dataset that has none."""

from __future__ import annotations

import random

from pixelwise.data.source import Source
from pixelwise.errors import InputError


def draw_validation_split(source: Source, *, val_fraction: float, seed: int) -> None:
    """Move a random part of the training images to `val` if the dataset has no `val` split.

    Changes `source.splits` and adds a note. A dataset without any splits is divided into `train`
    and `val`.

    Args:
        source: The dataset.
        val_fraction: Fraction of the images to draw; at least one image, and never all.
        seed: Random seed.

    Raises:
        InputError: If there are fewer than two images.
    """
    undivided = "all" if "all" in source.splits else "train"
    if "val" in source.splits or undivided not in source.splits:
        return
    samples = sorted(source.splits.pop(undivided), key=lambda sample: sample.name)
    if len(samples) < 2:
        raise InputError(
            f"{source.root}: the dataset has {len(samples)} image: at least 2 are needed, one for "
            "training and one for validation"
        )
    random.Random(seed).shuffle(samples)
    count = min(len(samples) - 1, max(1, round(len(samples) * val_fraction)))
    others = dict(source.splits)
    source.splits.clear()
    source.splits["train"] = sorted(samples[count:], key=lambda sample: sample.name)
    source.splits["val"] = sorted(samples[:count], key=lambda sample: sample.name)
    source.splits.update(others)
    source.val_drawn = True
    source.notes.append(
        f"no validation split in the dataset: {count} of {len(samples)} images were drawn at "
        f"random (seed {seed})"
    )
