"""Draw a validation split for a dataset that has none."""

from __future__ import annotations

import random
from itertools import accumulate

from pixelwise.data.rasters.blocks import keep_apart
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError


def draw_validation_split(source: Source, *, val_fraction: float, seed: int) -> None:
    """Move a random part of the training images to `val` if the dataset has no `val` split.

    Changes `source.splits` and adds a note. A dataset without any splits is divided into `train`
    and `val`.

    Args:
        source: The dataset.
        val_fraction: Fraction of the images to draw; at least one image, and never all.
        seed: Random seed.

    Windows of rasters are drawn in blocks, and those of `train` that overlap a window of another
    split are left out.

    Raises:
        InputError: If there are fewer than two images or blocks.
    """
    _draw(source, val_fraction=val_fraction, seed=seed)
    if source.has_no_data:
        keep_apart(source)


def _draw(source: Source, *, val_fraction: float, seed: int) -> None:
    undivided = "all" if "all" in source.splits else "train"
    if "val" in source.splits or undivided not in source.splits:
        return
    samples = sorted(source.splits.pop(undivided), key=lambda sample: sample.name)
    if len(samples) < 2:
        raise InputError(
            f"{source.root}: the dataset has {len(samples)} image: at least 2 are needed, one for "
            "training and one for validation"
        )
    if any(sample.group for sample in samples):
        samples, count = _draw_groups(source, samples, val_fraction=val_fraction, seed=seed)
    else:
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
        f"random{' by group' if any(s.group for s in samples) else ''} (seed {seed})"
    )


def _draw_groups(
    source: Source, samples: list[Sample], *, val_fraction: float, seed: int
) -> tuple[list[Sample], int]:
    """Order samples by groups drawn at random.

    Returns:
        The samples, and how many of the first ones make up whole groups for `val`: the number of
        groups whose size is closest to the fraction.
    """
    members: dict[str, list[Sample]] = {}
    for sample in samples:
        members.setdefault(sample.group or sample.name, []).append(sample)
    if len(members) < 2:
        raise InputError(
            f"{source.root}: all {len(samples)} images belong to one group or block, which cannot "
            "be divided: at least 2 are needed, one for training and one for validation"
        )
    groups = list(members.values())
    random.Random(seed).shuffle(groups)
    ends = list(accumulate(len(group) for group in groups))
    count = min(ends[:-1], key=lambda end: abs(end - val_fraction * len(samples)))
    return [sample for group in groups for sample in group], count
