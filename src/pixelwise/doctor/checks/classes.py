"""Missing and rare classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.pair_inspection import Scan

SHARED_COLOR = Kind("shared-color", Severity.WARNING, "Classes with the same color")
ABSENT = {
    "train": Kind("absent-from-train", Severity.ERROR, "Classes that are missing in train"),
    "val": Kind("absent-from-val", Severity.WARNING, "Classes that are missing in val"),
    "test": Kind("absent-from-test", Severity.NOTE, "Classes that are missing in test"),
}
UNLABELED = Kind("unlabeled-split", Severity.ERROR, "Splits without a labeled pixel")
ONE_CLASS_SPLIT = Kind("one-class-split", Severity.ERROR, "Splits with a single class")
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
    classes = scan.classes
    if classes is None:
        return
    found = {split: count_pixels(scan, split) for split in scan.splits}
    total = sum(found.values(), np.zeros(256, dtype=np.int64))[: len(classes)]
    for split, counts in found.items():
        present = np.flatnonzero(counts[: len(classes)])
        if len(present) == 0 and counts[IGNORE]:
            yield UNLABELED.found(
                [],
                f"all pixels of {split} are ignored: nothing can be learned or scored on them",
                remedy=f"label the masks{ignored_hint(scan)}",
                stops=split == "train",
            )
        if len(present) == 1 and np.count_nonzero(total) > 1:
            remedy = f"move images with other classes into {split}"
            yield ONE_CLASS_SPLIT.found(
                [],
                f"{split} holds only {classes.names[present[0]]}, but the dataset has "
                f"{np.count_nonzero(total)} classes",
                remedy=remedy + _redraw(scan),
            )
        if len(present) > 1 and split in ABSENT:
            yield from _absent(scan, split, counts, total)


def _absent(
    scan: Scan, split: str, counts: NDArray[np.int64], total: NDArray[np.int64]
) -> Iterator[Finding]:
    assert scan.classes is not None
    for index, name in enumerate(scan.classes.names):
        if counts[index]:
            continue
        message = f"{name} is in no mask of {split}"
        if split == "train":
            message += ": the network cannot learn it"
            remedy = f"add images of {name} to train, or remove the class from the table"
            remedy += "" if total[index] else ignored_hint(scan, name)
        else:
            message += ": its score is undefined"
            remedy = f"move some images of {name} into {split}{_redraw(scan)}"
        yield ABSENT[split].found([], message, remedy=remedy)


def _redraw(scan: Scan) -> str:
    return ", as folders train/ and val/, or draw others: --seed N" if scan.source.val_drawn else ""


def ignored_hint(scan: Scan, name: str = "a class") -> str:
    """Return the remedy for an object that is lost because its value is ignored; "" if none is."""
    classes = scan.classes
    ignored = sum(int(scan.class_counts(pair.mask)[IGNORE]) for pair in scan.usable())
    if classes is None or classes.ignore is None or not ignored:
        return ""
    return (
        f"; if the ignored value {classes.ignore} is {name}, remove `ignore` from "
        f"{scan.root / 'classes.toml'} and write `value = {classes.ignore}` for the class"
    )


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
