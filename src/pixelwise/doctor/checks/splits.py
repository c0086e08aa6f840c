"""The splits: large enough, and like each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import Finding, Kind, Severity

FEW_IMAGES = Kind("few-images", Severity.WARNING, "Very few images to train on")
TINY_VAL = Kind("tiny-val", Severity.WARNING, "Very few images to check with")
SPLITS_DIFFER = Kind("splits-differ", Severity.WARNING, "A split whose images have another size")

MIN_TRAIN = 10
MIN_VAL = 3
MIN_VAL_SHARE = 0.02
SIZE_RATIO = 1.5
"""Of the median height or width of two splits."""


def few_images(scan: DatasetScan) -> Iterator[Finding]:
    train, val = (sum(s.usable for s in scan.splits.get(name, ())) for name in ("train", "val"))
    if 0 < train < MIN_TRAIN:
        yield FEW_IMAGES.found(
            [],
            f"train has {train} usable {'image' if train == 1 else 'images'}: a network learns "
            "these by heart",
            remedy="label some dozens; until then take the scores as a test of the chain only",
        )
    # A drawn val of a tiny folder is as small as that folder makes it: said once, above.
    told = scan.stored_splits or train >= MIN_TRAIN
    if train and told and val < max(MIN_VAL, MIN_VAL_SHARE * train):
        yield TINY_VAL.found(
            [],
            f"val has {val} usable {'image' if val == 1 else 'images'} beside {train} in train: "
            "its score is mostly chance",
            remedy="move images from train to val, a tenth to a fifth of them"
            if scan.stored_splits
            else "--set data.val_fraction=0.2",
        )


def splits_that_differ(scan: DatasetScan) -> Iterator[Finding]:
    """Only where a folder has splits of its own: a random draw differs by chance."""
    if not scan.stored_splits:
        return
    medians = {
        split: np.median([s.image.size for s in pair_reports if s.image.fault is None], axis=0)
        for split, pair_reports in scan.splits.items()
        if any(s.image.fault is None for s in pair_reports)
    }
    for split in ("val", "test"):
        if split not in medians or "train" not in medians:
            continue
        ratio = float(np.max(np.abs(np.log(medians[split] / medians["train"]))))
        if ratio > np.log(SIZE_RATIO):
            (height, width), (other_height, other_width) = medians[split], medians["train"]
            yield SPLITS_DIFFER.found(
                [],
                f"the usual image of {split} is {width:.0f}x{height:.0f}, that of train "
                f"{other_width:.0f}x{other_height:.0f}: things have another scale there, and the "
                "score tells little",
                remedy="bring the images to one scale (masks with nearest neighbor), or draw the "
                "splits from all of them",
            )
