"""Missing and rare classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.pair_inspection import Scan

SHARED_COLOR = Kind("shared-color", Severity.WARNING, "Classes with the same color")
ABSENT = {
    "train": Kind("absent-from-train", Severity.ERROR, "Classes that are missing in train"),
    "val": Kind("absent-from-val", Severity.WARNING, "Classes that are missing in val"),
    "test": Kind("absent-from-test", Severity.NOTE, "Classes that are missing in test"),
}
RARE_CLASS = Kind("rare-class", Severity.WARNING, "Very rare classes", by_example=True)
FEW_IMAGES_OF_CLASS = Kind(
    "few-images-of-class", Severity.WARNING, "Classes in very few images", by_example=True
)
IMBALANCE = Kind("imbalance", Severity.NOTE, "Very different numbers of pixels per class")

RARE = 0.15
RARE_AT_MOST = 0.015
"""A class is very rare below RARE / num_classes of all pixels, and below RARE_AT_MOST of them."""
FEW_IMAGES = 3
IMBALANCED = 30.0
"""Ratio of the largest to the smallest class above which class weights are suggested."""

WEIGHTS_FLAG = "--set loss.class_weights=root_median_frequency"


def count_pixels(scan: Scan, split: str) -> NDArray[np.int64]:
    """Return (256,) the pixels of each class index in a split, including IGNORE."""
    total = np.zeros(256, dtype=np.int64)
    for pair in scan.usable(split):
        total += scan.class_counts(pair.mask)
    return total


def count_images(scan: Scan, split: str) -> NDArray[np.int64]:
    """Return (256,) the images of a split in which each class index occurs, including IGNORE."""
    total = np.zeros(256, dtype=np.int64)
    for pair in scan.usable(split):
        total += scan.class_counts(pair.mask) > 0
    return total


def _largest(scan: Scan, index: int, *, count: int = 3) -> list[Path]:
    """Return the training masks with the most pixels of a class."""
    masks = [(int(scan.class_counts(s.mask)[index]), s) for s in scan.usable("train")]
    masks = [pair for pair in masks if pair[0]]
    masks.sort(key=lambda pair: (-pair[0], pair[1].sample.name))
    return [pair.mask.path for _, pair in masks[:count]]


def shared_colors(scan: Scan) -> Iterator[Finding]:
    classes = scan.classes
    if classes is None:
        return
    for color in sorted({c for c in classes.colors if classes.colors.count(c) > 1}):
        pairs = zip(classes.names, classes.colors, strict=True)
        names = [name for name, class_color in pairs if class_color == color]
        yield SHARED_COLOR.found(
            [scan.root / "classes.toml"],
            f"gives {' and '.join(names)} the same color, {color}: overlays cannot distinguish "
            "them, and RGB masks cannot be read",
            remedy="give each class its own color in classes.toml",
        )


def absent_classes(scan: Scan) -> Iterator[Finding]:
    if scan.classes is None:
        return
    for split, kind in ABSENT.items():
        counts = count_pixels(scan, split)[: len(scan.classes)]
        if np.count_nonzero(counts) < min(2, len(counts)):
            continue  # nothing is labeled, or one class is everywhere: other checks report it
        for name, count in zip(scan.classes.names, counts, strict=True):
            if count:
                continue
            message = f"{name} is in no mask of {split}"
            if split == "train":
                message += ": the network cannot learn it"
                remedy = f"add images of {name} to train, or remove the class from the table"
            else:
                message += ": its score is undefined"
                remedy = f"move some images of {name} into {split}"
                if scan.source.val_drawn:
                    remedy += ", as folders train/ and val/, or draw others: --seed N"
            yield kind.found([], message, remedy=remedy)


def rare_classes(scan: Scan) -> Iterator[Finding]:
    classes = scan.classes
    if classes is None:
        return
    counts = count_pixels(scan, "train")[: len(classes)]
    occurrences = count_images(scan, "train")[: len(classes)]
    total, images = int(counts.sum()), sum(1 for _ in scan.usable("train"))
    if total == 0:
        return
    limit = min(RARE / len(classes), RARE_AT_MOST)
    rows = enumerate(zip(classes.names, counts, occurrences, strict=True))
    for index, (name, count, within) in rows:
        share = int(count) / total
        if 0 < share < limit:
            yield RARE_CLASS.found(
                _largest(scan, index),
                f"{name} has {100 * share:.2g} % of the train pixels, in {within} of {images} "
                "images",
                remedy=f"add images of it if possible; otherwise try {WEIGHTS_FLAG}",
            )
        if 0 < within < FEW_IMAGES <= images // 3:
            yield FEW_IMAGES_OF_CLASS.found(
                _largest(scan, index),
                f"{name} is in only {within} of {images} train images",
                remedy=f"add images of {name}, or merge it with another class",
            )
    present = counts[counts > 0]
    ratio = present.max() / present.min()
    if len(present) > 1 and ratio >= IMBALANCED:
        most, least = int(counts.argmax()), int(np.where(counts > 0, counts, total).argmin())
        yield IMBALANCE.found(
            [],
            f"{classes.names[most]} has {ratio:.0f} times the pixels of {classes.names[least]}",
            remedy=WEIGHTS_FLAG,
        )
