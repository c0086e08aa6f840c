"""Draw a validation split for a dataset that has none."""

from __future__ import annotations

import random

from pixelwise.data.groups import find_groups
from pixelwise.data.rasters.blocks import keep_apart
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError


def draw_validation_split(
    source: Source, *, val_fraction: float, seed: int, group_by: str = ""
) -> None:
    """Move a random part of the training images to `val` if the dataset has no `val` split.

    Changes `source.splits` and adds a note. A dataset without any splits is divided into `train`
    and `val`.

    Args:
        source: The dataset.
        val_fraction: Fraction of the images to draw; at least one image, and never all.
        seed: Random seed.
        group_by: The rule that names the groups of images that are kept together; see
            `data.groups`. Empty: each image is drawn for itself.

    Windows of rasters are drawn in blocks if there is no rule, and those of `train` that overlap a
    window of another split are left out.

    Raises:
        InputError: If there are fewer than two images or groups, or the rule cannot be used.
    """
    _draw(source, val_fraction=val_fraction, seed=seed, group_by=group_by)
    if source.has_no_data:
        keep_apart(source)


def _draw(source: Source, *, val_fraction: float, seed: int, group_by: str) -> None:
    undivided = "all" if "all" in source.splits else "train"
    if "val" in source.splits or undivided not in source.splits:
        return
    samples = sorted(source.splits.pop(undivided), key=lambda sample: sample.name)
    if len(samples) < 2:
        raise InputError(
            f"{source.root}: the dataset has {len(samples)} image: at least 2 are needed, one for "
            "training and one for validation"
        )
    groups = find_groups(source.root, samples, group_by)
    count = min(len(samples) - 1, max(1, round(len(samples) * val_fraction)))
    if groups is None:
        random.Random(seed).shuffle(samples)
        drawn = {sample.name for sample in samples[:count]}
    else:
        drawn = _draw_groups(source, samples, groups, count, seed)
    others = dict(source.splits)
    source.splits.clear()
    samples.sort(key=lambda sample: sample.name)
    source.splits["train"] = [sample for sample in samples if sample.name not in drawn]
    source.splits["val"] = [sample for sample in samples if sample.name in drawn]
    source.splits.update(others)
    source.val_drawn = True
    grouped = "" if groups is None else f", whole groups by {group_by or 'block'}"
    source.notes.append(
        f"no validation split in the dataset: {len(drawn)} of {len(samples)} images were drawn at "
        f"random (seed {seed}{grouped})"
    )


def _draw_groups(
    source: Source, samples: list[Sample], groups: list[str], count: int, seed: int
) -> set[str]:
    """Draw whole groups with about `count` images, and return the names of these."""
    members: dict[str, set[str]] = {}
    for sample, group in zip(samples, groups, strict=True):
        members.setdefault(group, set()).add(sample.name)
    if len(members) < 2:
        raise InputError(
            f"{source.root}: all {len(samples)} images are of the group {groups[0]!r}: at least 2 "
            "groups are needed, one for training and one for validation"
        )
    order = list(members.values())
    random.Random(seed).shuffle(order)
    drawn: set[str] = set()
    for names in order:
        if len(drawn) + len(names) <= count:
            drawn |= names
    return drawn or min(order, key=len)
