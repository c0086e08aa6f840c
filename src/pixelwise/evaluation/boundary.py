"""How well borders are met: boundary F1, and boundary IoU.

Void is no class. It has no borders of its own, and what is predicted there does not count. Where
void covers all borders, as in PASCAL VOC's masks, boundary F1 is undefined; boundary IoU, which
looks across it, is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.evaluation.confusion import mean_known, plain

TOLERANCE = 0.0075
"""Of boundary F1: part of the image's diagonal (Csurka et al., BMVC 2013, section 3)."""
BAND = 0.02
"""Of boundary IoU: width of the band, part of the image's diagonal (arXiv:2103.16562)."""
WORD = 64

Labels = NDArray[np.uint8]
Bits = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class BoundaryTally:
    """Of one image, by class.

    f1: (C,) 0..1, NaN for a class that has a border neither in the truth nor in the prediction.
    band_right, band_either: (C,) pixels of both bands, and of one or both.
    """

    f1: NDArray[np.float64]
    band_right: NDArray[np.int64]
    band_either: NDArray[np.int64]


@dataclass(frozen=True)
class BoundaryScores:
    """Of a split, 0..1, by class and as the mean over classes; NaN where undefined.

    f1: the mean over the images in which the class has a border. iou: of the bands of all images.
    """

    f1: NDArray[np.float64]
    iou: NDArray[np.float64]

    @property
    def mean_f1(self) -> float:
        return float(mean_known(self.f1))

    @property
    def mean_iou(self) -> float:
        return float(mean_known(self.iou))

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {
            "mean_boundary_f1": plain(self.mean_f1),
            "mean_boundary_iou": plain(self.mean_iou),
            "classes": {
                name: {"boundary_f1": plain(self.f1[i]), "boundary_iou": plain(self.iou[i])}
                for i, name in enumerate(names)
            },
        }


def boundary_tally(truth: Labels, predicted: Labels, *, classes: int) -> BoundaryTally:
    """Hold a prediction's borders against the truth's: (H, W) class indices; truth may be IGNORE.

    F1 after Csurka et al. (What is a good evaluation measure for semantic segmentation?, BMVC
    2013): a border pixel is found where the other mask has one of the same class within 0.75 % of
    the diagonal, and at least a pixel. A border pixel has a neighbor of another class above, below
    or beside it. IoU of bands after Cheng et al. (arXiv:2103.16562, section 4): the pixels of a
    class with another, or the image's end, within 2 % of the diagonal by rows and by columns.
    """
    predicted = np.where(truth == IGNORE, np.uint8(IGNORE), predicted)
    diagonal = math.hypot(*truth.shape)
    f1 = _f1(truth, predicted, radius=max(1.0, TOLERANCE * diagonal), classes=classes)
    width = max(1, round(BAND * diagonal))
    bands = [np.where(_in_band(m, width, classes), m, IGNORE) for m in (truth, predicted)]
    right = _count(np.where(bands[0] == bands[1], bands[0], IGNORE), classes)
    either = _count(bands[0], classes) + _count(bands[1], classes) - right
    return BoundaryTally(f1, right, either)


def boundary_scores(tallies: list[BoundaryTally]) -> BoundaryScores:
    """Of a split's images, one or more."""
    right = sum(tally.band_right for tally in tallies)
    with np.errstate(invalid="ignore"):
        iou = right / np.asarray(sum(tally.band_either for tally in tallies))
    return BoundaryScores(mean_known(np.stack([tally.f1 for tally in tallies]).T), iou)


def _f1(truth: Labels, predicted: Labels, *, radius: float, classes: int) -> NDArray[np.float64]:
    borders = [np.where(_on_border(mask), mask, IGNORE) for mask in (truth, predicted)]
    totals = [_count(border, classes) for border in borders]
    found = [np.zeros(classes, dtype=np.int64) for _ in borders]
    for first in range(0, classes, WORD):
        bits = [_bits(border, first, classes) for border in borders]
        for own, other, border, count in zip(bits, bits[::-1], borders, found, strict=True):
            hit = (own & _spread_disk(other, radius)) != 0
            count += _count(border[hit], classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = (f / t for f, t in zip(found, totals, strict=True))
        f1 = 2 * precision * recall / (precision + recall)
    there = [total > 0 for total in totals]
    f1[(there[0] != there[1]) | (precision + recall == 0)] = 0
    f1[~there[0] & ~there[1]] = np.nan
    return np.asarray(f1, dtype=np.float64)


def _on_border(mask: Labels) -> NDArray[np.bool_]:
    border = np.zeros(mask.shape, dtype=bool)
    for one, other in (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differs = (mask[one] != mask[other]) & (mask[one] != IGNORE) & (mask[other] != IGNORE)
        border[one] |= differs
        border[other] |= differs
    return border


def _in_band(mask: Labels, width: int, classes: int) -> NDArray[np.bool_]:
    """Pixels with one of another class, or the image's end, within `width` rows and columns."""
    band = np.ones(mask.shape, dtype=bool)
    band[width:-width, width:-width] = False
    for first in range(0, classes, WORD):
        bits = _bits(mask, first, classes)
        band |= (_spread_box(bits, width) & ~bits) != 0
    return band


def _count(labels: Labels, classes: int) -> NDArray[np.int64]:
    return np.bincount(labels.ravel(), minlength=IGNORE + 1)[:classes].astype(np.int64)


def _bits(labels: Labels, first: int, classes: int) -> Bits:
    """A word a pixel, in which the bit of its class is set: sets of classes, for WORD of them."""
    count = min(WORD, classes - first)
    kind = np.dtype(next(f"uint{size}" for size in (8, 16, 32, 64) if size >= count))
    table = np.zeros(256, dtype=kind)
    table[first : first + count] = kind.type(1) << np.arange(count, dtype=kind)
    return np.asarray(table[labels])


def _spread_disk(bits: Bits, radius: float) -> Bits:
    """At each pixel the union of the sets within `radius`."""
    height, out = len(bits), np.zeros_like(bits)
    grown, width = bits.copy(), 0
    for rows in range(min(int(radius), height - 1), -1, -1):
        while width < int(math.sqrt(radius**2 - rows**2)):
            width += 1
            grown[:, width:] |= bits[:, :-width]
            grown[:, :-width] |= bits[:, width:]
        out[rows:] |= grown[: height - rows]
        out[: height - rows] |= grown[rows:]
    return out


def _spread_box(bits: Bits, reach: int) -> Bits:
    """At each pixel the union of the sets up to `reach` rows and columns away."""
    for turned in (False, True):
        out = np.array(bits.T if turned else bits)
        covered = 0
        while covered < reach:
            shift = min(2 * covered + 1, reach - covered, len(out))
            before = out.copy()
            out[shift:] |= before[: len(out) - shift]
            out[: len(out) - shift] |= before[shift:]
            covered += shift
        bits = out.T if turned else out
    return bits
