"""The classes: which are missing, which are rare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import Finding, Kind, Severity

SHARED_COLOR = Kind("shared-color", Severity.WARNING, "Classes of one color")
ABSENT_FROM_TRAIN = Kind("absent-from-train", Severity.ERROR, "Classes that train does not hold")
ABSENT_FROM_VAL = Kind("absent-from-val", Severity.WARNING, "Classes that val does not hold")
ABSENT_FROM_TEST = Kind("absent-from-test", Severity.NOTE, "Classes that test does not hold")
RARE_CLASS = Kind("rare-class", Severity.WARNING, "Very rare classes", by_example=True)
FEW_IMAGES_OF_CLASS = Kind(
    "few-images-of-class", Severity.WARNING, "Classes in very few images", by_example=True
)
IMBALANCE = Kind("imbalance", Severity.NOTE, "Classes of very different size")

RARE = 0.15
"""Of the share that each class would have if all had the same, and ..."""
RARE_AT_MOST = 0.015
"""... of all pixels: below both a class is very rare."""
FEW_IMAGES = 3
IMBALANCED = 30.0
"""Largest class over smallest, from which weights are worth a try."""

WEIGHTS_FLAG = "--set loss.class_weights=root_median_frequency"


def pixels(scan: DatasetScan, split: str) -> NDArray[np.int64]:
    """(C + 1,) pixels of each class of a split; ignored ones last."""
    assert scan.classes is not None
    total = np.zeros(len(scan.classes) + 1, dtype=np.int64)
    for pair_report in scan.usable(split):
        total += scan.counts(pair_report.mask)
    return total


def images(scan: DatasetScan, split: str) -> NDArray[np.int64]:
    """(C + 1,) images of a split in which each class occurs; ignored pixels last."""
    assert scan.classes is not None
    total = np.zeros(len(scan.classes) + 1, dtype=np.int64)
    for pair_report in scan.usable(split):
        total += scan.counts(pair_report.mask) > 0
    return total


def largest(scan: DatasetScan, place: int, *, count: int = 3) -> list[Path]:
    """The masks of train that hold most pixels of one class."""
    holding = [(int(scan.counts(s.mask)[place]), s) for s in scan.usable("train")]
    holding = [pair for pair in holding if pair[0]]
    holding.sort(key=lambda pair: (-pair[0], pair[1].sample.name))
    return [pair_report.mask.path for _, pair_report in holding[:count]]


def shared_colors(scan: DatasetScan) -> Iterator[Finding]:
    classes = scan.classes
    if classes is None:
        return
    for color in sorted({c for c in classes.colors if classes.colors.count(c) > 1}):
        pairs = zip(classes.names, classes.colors, strict=True)
        names = [name for name, own in pairs if own == color]
        yield SHARED_COLOR.found(
            [scan.root / "classes.toml"],
            f"gives {' and '.join(names)} one color, {color}: overlays cannot show them apart, "
            "and RGB masks cannot be read",
            remedy="give each class its own color in classes.toml",
        )


def absent_classes(scan: DatasetScan) -> Iterator[Finding]:
    if scan.classes is None:
        return
    kinds = {"train": ABSENT_FROM_TRAIN, "val": ABSENT_FROM_VAL, "test": ABSENT_FROM_TEST}
    for split, kind in kinds.items():
        counts = pixels(scan, split)[:-1]
        if np.count_nonzero(counts) < min(2, len(counts)):
            continue  # nothing is labeled, or one class is everywhere: said elsewhere
        for name, count in zip(scan.classes.names, counts, strict=True):
            if count:
                continue
            sentence = f"{name} is in no mask of {split}"
            if split == "train":
                sentence += ": it cannot be learned"
                remedy = f"add images of {name} to train, or take the class out of the table"
            else:
                sentence += ": it is not scored there"
                remedy = f"move some images of {name} into {split}"
                if not scan.stored_splits:
                    remedy += ", as folders train/ and val/, or draw others: --seed N"
            yield kind.found([], sentence, remedy=remedy)


def rare_classes(scan: DatasetScan) -> Iterator[Finding]:
    classes = scan.classes
    if classes is None or not any(scan.usable("train")):
        return
    counts = pixels(scan, "train")[:-1]
    seen_in = images(scan, "train")[:-1]
    total = int(counts.sum())
    number = sum(1 for _ in scan.usable("train"))
    if total == 0:
        return
    limit = min(RARE / len(classes), RARE_AT_MOST)
    rows = enumerate(zip(classes.names, counts, seen_in, strict=True))
    for place, (name, count, within) in rows:
        share = int(count) / total
        if 0 < share < limit:
            yield RARE_CLASS.found(
                largest(scan, place),
                f"{name} has {100 * share:.2g} % of the train pixels, in {within} of {number} "
                "images",
                remedy=f"more images of it where there are some; else try {WEIGHTS_FLAG}",
            )
        if 0 < within < FEW_IMAGES <= number // 3:
            yield FEW_IMAGES_OF_CLASS.found(
                largest(scan, place),
                f"{name} is in {within} of {number} train images only",
                remedy=f"add images of {name}, or join it with another class",
            )
    present = counts[counts > 0]
    if len(present) > 1 and present.max() / present.min() >= IMBALANCED:
        most, least = int(counts.argmax()), int(np.where(counts > 0, counts, total).argmin())
        yield IMBALANCE.found(
            [],
            f"{classes.names[most]} has {present.max() / present.min():.0f} times the pixels of "
            f"{classes.names[least]}",
            remedy=WEIGHTS_FLAG,
        )
