"""Connected regions of an image in which a network contradicts the labels, and their kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.regions.components import Components, Labels, find_components, require_ndimage
from pixelwise.study.label_errors.evidence import ClassThresholds, Evidence

LEAST_STRENGTH = 1.0
"""Evidence of a pixel that belongs to a region, in units of the log odds."""
LEAST_SHARE = 0.0003
"""The smallest region as a fraction of the pixels of the image."""
MOST_PER_IMAGE = 40
OVERLAP = 0.3
"""A region that overlaps stronger ones by more than this fraction of its pixels is left out."""
LEAST_SURPRISE = 0.05
"""The surprise of a region in the score is at least this, so that the rest still counts."""
WHOLE = 0.3
"""An object that the other map confirms by less than this fraction is contradicted as a whole."""


class Kind(StrEnum):
    """What may be wrong."""

    MISSING = "missing object"
    SUPERFLUOUS = "superfluous object"
    WRONG_CLASS = "wrong class"
    BORDER = "loose or shifted border"
    MISPAIRED = "mask of another image"


@dataclass(frozen=True)
class Region:
    """A region in which a network contradicts the labels.

    Attributes:
        image: Name of the image.
        kind: What may be wrong.
        labeled: The class index that most of its pixels are labeled as.
        predicted: The class index that most of them are predicted as.
        pixels: Number of pixels.
        box: (top, left, bottom, right) in pixels; the last two are exclusive.
        strength: Mean log odds of the predicted class against the labeled one.
        surprise: Mean surprise of its pixels, of `Evidence`.
        probability: Mean calibrated probability of the prediction, 0..1.
        confident: Whether that reaches the self-confidence of the predicted class.
        score: Grows with the suspicion, before other regions are taken into account.
        bits: The pixels inside the box, packed.
        other: The image whose mask this seems to be, if known.
    """

    image: str
    kind: Kind
    labeled: int
    predicted: int
    pixels: int
    box: tuple[int, int, int, int]
    strength: float
    surprise: float
    probability: float
    confident: bool
    score: float
    bits: bytes = b""
    other: str = ""

    def mask(self) -> NDArray[np.bool_]:
        """Return its pixels inside the box."""
        top, left, bottom, right = self.box
        shape = bottom - top, right - left
        bits = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=shape[0] * shape[1])
        return bits.astype(bool).reshape(shape)

    @property
    def window(self) -> tuple[slice, slice]:
        """The box as an index of the image."""
        top, left, bottom, right = self.box
        return slice(top, bottom), slice(left, right)


def find_regions(image: str, evidence: Evidence, thresholds: ClassThresholds) -> list[Region]:
    """Return the regions of an image that do not overlap, strongest first.

    Contradicted pixels are connected once by their predicted class and once by their label, since a
    missing object may cover several labels and a superfluous one several predicted classes. The
    score is the cube of the mean evidence, times the square of the mean surprise, times the root of
    the width of the region. So what this network usually gets wrong comes last: the thin bands
    along borders, and classes that it knows badly.
    """
    strong = evidence.strength >= LEAST_STRENGTH
    if not strong.any():
        return []
    maps = find_components(evidence.labels), find_components(evidence.predicted)
    found = []
    for values in (evidence.predicted, evidence.labels):
        components = find_components(np.where(strong, values, IGNORE).astype(np.uint8))
        found += list(_describe(image, evidence, thresholds, components, maps))
    found.sort(key=lambda region: -region.score)
    taken = np.zeros(strong.shape, bool)
    kept: list[Region] = []
    for region in found:
        inside, pixels = taken[region.window], region.mask()
        if (inside & pixels).sum() <= OVERLAP * region.pixels and len(kept) < MOST_PER_IMAGE:
            inside |= pixels
            kept.append(region)
    return kept


def _describe(
    image: str,
    evidence: Evidence,
    thresholds: ClassThresholds,
    components: Components,
    maps: tuple[Components, Components],
) -> Iterator[Region]:
    ndimage = require_ndimage()
    least = max(4, LEAST_SHARE * evidence.labels.size)
    agreed = evidence.labels == evidence.predicted
    confirmed = [np.bincount(m.ids[agreed], minlength=len(m)) / m.sizes for m in maps]
    boxes = ndimage.find_objects(components.ids + 1)
    side = float(np.sqrt(evidence.labels.size))
    for number in np.flatnonzero((components.sizes >= least) & (components.labels != IGNORE)):
        window = boxes[number]
        pixels = components.ids[window] == number
        labeled, predicted = (
            int(np.bincount(values[window][pixels]).argmax())
            for values in (evidence.labels, evidence.predicted)
        )
        strength = float(evidence.strength[window][pixels].mean())
        probability = float(evidence.probability[window][pixels].mean())
        surprise = float(evidence.surprise[window][pixels].mean())
        width = float(ndimage.distance_transform_edt(np.pad(pixels, 1)).max()) / side
        whole = [
            share[np.bincount(m.ids[window][pixels]).argmax()] < WHOLE
            for m, share in zip(maps, confirmed, strict=True)
        ]
        rows, columns = window
        yield Region(
            image,
            _kind(*whole),
            labeled,
            predicted,
            int(components.sizes[number]),
            (rows.start, columns.start, rows.stop, columns.stop),
            strength,
            surprise,
            probability,
            bool(probability >= thresholds.confidence[predicted]),
            strength**3 * max(LEAST_SURPRISE, surprise) ** 2 * width**0.5,
            np.packbits(pixels).tobytes(),
        )


def _kind(label_contradicted: bool, prediction_contradicted: bool) -> Kind:
    """Return what is wrong, by whether the labeled and the predicted object agree nowhere."""
    if label_contradicted and prediction_contradicted:
        return Kind.WRONG_CLASS
    if label_contradicted:
        return Kind.SUPERFLUOUS
    return Kind.MISSING if prediction_contradicted else Kind.BORDER


def corrected(labels: Labels, predicted: Labels, region: Region) -> Labels:
    """Return a copy of the labels with the prediction inside a region; ignored pixels stay."""
    new = labels.copy()
    inside = region.mask() & (labels[region.window] != IGNORE)
    new[region.window][inside] = predicted[region.window][inside]
    return new
