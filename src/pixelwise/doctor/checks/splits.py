"""The splits: whether they are large enough, and similar to each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from pixelwise.data.groups import suggested_group
from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.pair_inspection import InspectedPair, Scan

FEW_IMAGES = Kind("few-images", Severity.WARNING, "Very few training images")
TINY_VAL = Kind("tiny-val", Severity.WARNING, "Very few validation images")
SPLITS_DIFFER = Kind("splits-differ", Severity.WARNING, "A split whose images have another size")

GROUPS_CUT = Kind(
    "split-cuts-groups",
    Severity.WARNING,
    "A split that may divide groups of images",
    by_example=True,
)

MIN_TRAIN = 10
MIN_VAL = 3
MIN_VAL_SHARE = 0.02
MIN_GROUPED = 0.5
"""Fraction of the images whose names must suggest groups."""
MAX_SIZE_RATIO = 1.5
"""Ratio of the median heights or widths above which two splits differ."""


def few_images(scan: Scan) -> Iterator[Finding]:
    splits = scan.splits
    train, val = (sum(pair.usable for pair in splits.get(name, ())) for name in ("train", "val"))
    if 0 < train < MIN_TRAIN:
        yield FEW_IMAGES.found(
            [],
            f"train has {_images(train)}: a network memorizes them",
            remedy="label a few dozen; until then use the scores only as a test of the pipeline",
        )
    # The drawn val of a tiny dataset is necessarily tiny: the finding above covers it.
    if scan.source.val_drawn and train < MIN_TRAIN:
        return
    if train and val < max(MIN_VAL, MIN_VAL_SHARE * train):
        yield TINY_VAL.found(
            [],
            f"val has {_images(val)}, and train {train}: the validation score is mostly chance",
            remedy="--set data.val_fraction=0.2"
            if scan.source.val_drawn
            else "move images from train to val, a tenth to a fifth of them",
        )


def _images(count: int) -> str:
    return f"{count} usable {'image' if count == 1 else 'images'}"


def split_groups(scan: Scan) -> Iterator[Finding]:
    """Find groups, such as videos or patients, that the names suggest and that a split divides."""
    groups: dict[str, dict[str, list[InspectedPair]]] = defaultdict(lambda: defaultdict(list))
    total = len(scan.pairs)
    for pair in scan.pairs:
        group = suggested_group(pair.sample)
        if group:
            groups[group][pair.split].append(pair)
    repeated = {g: parts for g, parts in groups.items() if sum(map(len, parts.values())) > 1}
    grouped = sum(len(pairs) for parts in repeated.values() for pairs in parts.values())
    # One group is no division, and names that fit few images suggest nothing.
    if len(groups) < 2 or grouped < MIN_GROUPED * total:
        return
    for split, earlier in (("val", "train"), ("test", "train"), ("test", "val")):
        cut = {g: parts for g, parts in repeated.items() if split in parts and earlier in parts}
        if not cut:
            continue
        images = sum(len(parts[split]) for parts in cut.values())
        whole = len(scan.splits[split])
        examples = ", ".join(sorted(cut)[:3]) + (", ..." if len(cut) > 3 else "")
        yield GROUPS_CUT.found(
            [pair.image.path for parts in cut.values() for pair in parts[split][:1]][:3],
            f"{images} of {whole} images of {split} are named like images of {earlier} "
            f"({examples}): if these are of one patient or video, the score is too high",
            remedy="--group-by '{group}_*', or another pattern for your names"
            if scan.source.val_drawn
            else "divide the images by groups: cross-validate --group-by does",
        )


def splits_that_differ(scan: Scan) -> Iterator[Finding]:
    """Only for splits of the dataset itself: a random draw differs by chance."""
    if scan.source.val_drawn:
        return
    medians = {
        split: np.median([pair.image.size for pair in pairs if pair.image.readable], axis=0)
        for split, pairs in scan.splits.items()
        if any(pair.image.readable for pair in pairs)
    }
    for split in ("val", "test"):
        if split not in medians or "train" not in medians:
            continue
        ratio = float(np.max(np.abs(np.log(medians[split] / medians["train"]))))
        if ratio > np.log(MAX_SIZE_RATIO):
            (height, width), (train_height, train_width) = medians[split], medians["train"]
            yield SPLITS_DIFFER.found(
                [],
                f"the median image of {split} is {width:.0f}x{height:.0f}, but that of train is "
                f"{train_width:.0f}x{train_height:.0f}: objects have another scale there, and the "
                "score means little",
                remedy="resize the images to one scale (masks with nearest neighbor), or draw the "
                "splits from all of them",
            )
