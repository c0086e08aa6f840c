"""The classes: which are missing, which are rare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.survey import Survey

SHARED_COLOUR = Kind("shared-colour", Severity.WARNING, "Classes of one colour")
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


def pixels(survey: Survey, split: str) -> NDArray[np.int64]:
    """(C + 1,) pixels of each class of a split; ignored ones last."""
    assert survey.classes is not None
    total = np.zeros(len(survey.classes) + 1, dtype=np.int64)
    for sighting in survey.usable(split):
        total += survey.counts(sighting.mask)
    return total


def images(survey: Survey, split: str) -> NDArray[np.int64]:
    """(C + 1,) images of a split in which each class occurs; ignored pixels last."""
    assert survey.classes is not None
    total = np.zeros(len(survey.classes) + 1, dtype=np.int64)
    for sighting in survey.usable(split):
        total += survey.counts(sighting.mask) > 0
    return total


def largest(survey: Survey, place: int, *, count: int = 3) -> list[Path]:
    """The masks of train that hold most pixels of one class."""
    holding = [(int(survey.counts(s.mask)[place]), s) for s in survey.usable("train")]
    holding = [pair for pair in holding if pair[0]]
    holding.sort(key=lambda pair: (-pair[0], pair[1].sample.name))
    return [sighting.mask.path for _, sighting in holding[:count]]


def shared_colours(survey: Survey) -> Iterator[Finding]:
    classes = survey.classes
    if classes is None:
        return
    for colour in sorted({c for c in classes.colours if classes.colours.count(c) > 1}):
        pairs = zip(classes.names, classes.colours, strict=True)
        names = [name for name, own in pairs if own == colour]
        yield SHARED_COLOUR.found(
            [survey.root / "classes.toml"],
            f"gives {' and '.join(names)} one colour, {colour}: overlays cannot show them apart, "
            "and RGB masks cannot be read",
            remedy="give each class its own colour in classes.toml",
        )


def absent_classes(survey: Survey) -> Iterator[Finding]:
    if survey.classes is None:
        return
    kinds = {"train": ABSENT_FROM_TRAIN, "val": ABSENT_FROM_VAL, "test": ABSENT_FROM_TEST}
    for split, kind in kinds.items():
        counts = pixels(survey, split)[:-1]
        if np.count_nonzero(counts) < min(2, len(counts)):
            continue  # nothing is labelled, or one class is everywhere: said elsewhere
        for name, count in zip(survey.classes.names, counts, strict=True):
            if count:
                continue
            sentence = f"{name} is in no mask of {split}"
            if split == "train":
                sentence += ": it cannot be learnt"
                remedy = f"add images of {name} to train, or take the class out of the table"
            else:
                sentence += ": it is not scored there"
                remedy = f"move some images of {name} into {split}"
                if not survey.stored_splits:
                    remedy += ", as folders train/ and val/, or draw others: --seed N"
            yield kind.found([], sentence, remedy=remedy)


def rare_classes(survey: Survey) -> Iterator[Finding]:
    classes = survey.classes
    if classes is None or not any(survey.usable("train")):
        return
    counts = pixels(survey, "train")[:-1]
    seen_in = images(survey, "train")[:-1]
    total = int(counts.sum())
    number = sum(1 for _ in survey.usable("train"))
    if total == 0:
        return
    limit = min(RARE / len(classes), RARE_AT_MOST)
    rows = enumerate(zip(classes.names, counts, seen_in, strict=True))
    for place, (name, count, within) in rows:
        share = int(count) / total
        if 0 < share < limit:
            yield RARE_CLASS.found(
                largest(survey, place),
                f"{name} has {100 * share:.2g} % of the train pixels, in {within} of {number} "
                "images",
                remedy=f"more images of it where there are some; else try {WEIGHTS_FLAG}",
            )
        if 0 < within < FEW_IMAGES <= number // 3:
            yield FEW_IMAGES_OF_CLASS.found(
                largest(survey, place),
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
