"""Rank the regions of all images, and estimate how many labels are wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pixelwise.evaluation.bootstrap import LEVEL, interval, resampled_sums
from pixelwise.study.label_errors.mispaired import Overview
from pixelwise.study.label_errors.regions import Kind, Region

CERTAIN = 3.0
"""The mean evidence from which a region counts as wrong in the estimate: odds of 20 to 1."""
UNUSUAL = 3.0
"""The mean surprise from which it does: at most 1 in 20 of such pixels has as little support."""
PAIR, IMAGE = 0.6, 0.3
"""Exponents of the penalties: the score of the n-th region of a pair of classes is divided by
n ** PAIR, and that of the n-th region of an image by n ** IMAGE."""


@dataclass(frozen=True)
class Estimate:
    """How many regions are wrong.

    Attributes:
        count: The number of findings in which the network is certain.
        low: Lower bound of the 95 % interval over images.
        high: Upper bound.
    """

    count: int
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return {"count": self.count, "low": self.low, "high": self.high, "level": LEVEL}


def rank(
    regions: Sequence[Region], views: Mapping[str, Overview], mispaired: Mapping[str, str]
) -> list[Region]:
    """Return the findings, the most suspicious first.

    Masks of other images come first, in place of the regions of their images. The score of the n-th
    region of a pair of classes is divided by a power of n, so that classes which the network
    confuses everywhere do not fill the list; so is that of the n-th region of an image, since the
    network finds an image hard if it contradicts much of it.
    """
    whole = [
        Region(name, Kind.MISPAIRED, -1, -1, 0, (0, 0, 0, 0), 0.0, 0.0, 0.0, True, 0.0, other=other)
        for name, other in sorted(mispaired.items(), key=lambda item: views[item[0]].agreement)
    ]
    pairs: Counter[tuple[int, int]] = Counter()
    images: Counter[str] = Counter()
    ranked = []
    for region in sorted(regions, key=lambda region: (-region.score, region.image, region.box)):
        if region.image in mispaired:
            continue
        pair = region.labeled, region.predicted
        pairs[pair] += 1
        images[region.image] += 1
        penalty = pairs[pair] ** PAIR * images[region.image] ** IMAGE
        ranked.append(replace(region, score=region.score / penalty))
    ranked.sort(key=lambda region: (-region.score, region.image, region.box))
    return whole + ranked


def estimate(findings: Sequence[Region], images: Sequence[str]) -> Estimate:
    """Estimate the number of wrong regions, as confident learning does.

    A region counts if the network gives the predicted class at least the probability that it
    usually gives that class where it is labeled, and the labeled class next to none, and if that is
    unusual: at most 1 in 20 pixels of the labeled class, as far from its border, has as little. The
    interval is that of a bootstrap over images. It does not cover what the network has learned
    wrongly or cannot see, such as objects of a few pixels.
    """
    counts = Counter(f.image for f in findings if is_certain(f))
    by_image = np.array([[counts[name]] for name in images])
    low, high = interval(resampled_sums(by_image)[:, 0])
    return Estimate(int(by_image.sum()), float(low), float(high))


def is_certain(finding: Region) -> bool:
    """Whether a finding counts in the estimate."""
    if finding.kind is Kind.MISPAIRED:
        return True
    contradicted = finding.strength >= CERTAIN and finding.surprise >= UNUSUAL
    return contradicted and finding.confident
