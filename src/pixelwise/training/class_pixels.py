"""Check that the masks hold what a network can learn, before a run begins."""

from __future__ import annotations

import math

import numpy as np

from pixelwise.data.classes import listed
from pixelwise.data.dataset import SegmentationData
from pixelwise.errors import InputError


def check_class_pixels(data: SegmentationData) -> str:
    """Return a line about the classes without a training pixel; empty if there are none.

    Raises:
        InputError: If `train` has less than two classes with pixels, or `val` none.
    """
    hint = _ignore_hint(data)
    for split in ("train", "val"):
        if not data.pixel_counts[split].any():
            raise InputError(
                f"{data.root}: no pixel of the {len(data.splits[split])} masks of {split} belongs "
                f"to a class: label some of its images{hint}"
            )
    present = data.pixel_counts["train"] > 0
    names = np.array(data.classes.names)
    if present.sum() < 2:
        raise InputError(
            f"{data.root}: every labeled pixel of train is {names[present][0]}: nothing can be "
            f"learned from a single class: label another one{hint}"
        )
    if present.all():
        return ""
    missing = names[~present].tolist()
    return f"no training mask has a pixel of {listed(missing)}: this is not learned{hint}"


def _ignore_hint(data: SegmentationData) -> str:
    """Return a remedy for a class whose value the class table declares as ignored."""
    pixels = sum(math.prod(data.sizes[sample.name]) for sample in data.splits["train"])
    ignored = 1 - int(data.pixel_counts["train"].sum()) / pixels
    if ignored == 0:
        return ""
    return (
        f" ({100 * ignored:.0f} % of the training pixels are ignored: if their mask value is a "
        "class, change `ignore` in classes.toml)"
    )
