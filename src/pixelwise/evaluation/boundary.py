"""How well predicted boundaries match the true ones: boundary F1 and boundary IoU.

Ignored (void) pixels are not a class: they have no boundary, and predictions there do not count.
Where void covers all boundaries, as in PASCAL VOC's masks, boundary F1 is undefined. Boundary IoU
is defined there because its band extends across the void.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.data.label_borders import at_border
from pixelwise.evaluation.confusion import nan_mean, to_plain

TOLERANCE = 0.0075
"""Tolerance of boundary F1, over the image's diagonal (Csurka et al., BMVC 2013, section 3)."""
BAND = 0.02
"""Width of boundary IoU's band, as a fraction of the image's diagonal (arXiv:2103.16562)."""
WORD = 64  # bits of the words that store sets of classes

Labels = NDArray[np.uint8]
Bits = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class BoundaryCounts:
    """Boundary statistics of one image, by class.

    Attributes:
        f1: (C,) boundary F1, 0..1. NaN for a class with no boundary in truth and prediction.
        intersection: (C,) pixels in both bands.
        union: (C,) pixels in one or both bands.
    """

    f1: NDArray[np.float64]
    intersection: NDArray[np.int64]
    union: NDArray[np.int64]


@dataclass(frozen=True)
class BoundaryScores:
    """Boundary scores of a split, 0..1. NaN where undefined.

    Attributes:
        f1: (C,) mean over the images in which the class has a boundary.
        iou: (C,) IoU of the bands of all images.
    """

    f1: NDArray[np.float64]
    iou: NDArray[np.float64]

    @property
    def mean_f1(self) -> float:
        """Mean of `f1` over the classes."""
        return float(nan_mean(self.f1))

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes."""
        return float(nan_mean(self.iou))

    def to_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return plain JSON. NaN becomes null."""
        return {
            "mean_boundary_f1": to_plain(self.mean_f1),
            "mean_boundary_iou": to_plain(self.mean_iou),
            "classes": {
                name: {"boundary_f1": to_plain(self.f1[i]), "boundary_iou": to_plain(self.iou[i])}
                for i, name in enumerate(names)
            },
        }


def count_boundary(truth: Labels, predicted: Labels, *, classes: int) -> BoundaryCounts:
    """Compare the boundaries of a prediction with the true ones.

    Boundary F1 follows Csurka et al. (What is a good evaluation measure for semantic
    segmentation?, BMVC 2013): a boundary pixel is found if the other mask has a boundary pixel of
    the same class within 0.75 % of the diagonal, and at least one pixel. A pixel is on the boundary
    if the pixel above, below or beside it has another class. Boundary IoU follows Cheng et al.
    (arXiv:2103.16562, section 4): the band holds the pixels of a class that have another class, or
    the end of the image, within 2 % of the diagonal by rows and by columns.

    Args:
        truth: (H, W) true classes, with IGNORE.
        predicted: (H, W) predicted classes.
        classes: Number of classes C.
    """
    predicted = np.where(truth == IGNORE, np.uint8(IGNORE), predicted)
    diagonal = math.hypot(*truth.shape)
    f1 = _f1(truth, predicted, radius=max(1.0, TOLERANCE * diagonal), classes=classes)
    width = max(1, round(BAND * diagonal))
    bands = [np.where(_in_band(m, width, classes), m, IGNORE) for m in (truth, predicted)]
    intersection = _count(np.where(bands[0] == bands[1], bands[0], IGNORE), classes)
    union = _count(bands[0], classes) + _count(bands[1], classes) - intersection
    return BoundaryCounts(f1, intersection, union)


def boundary_scores(images: list[BoundaryCounts]) -> BoundaryScores:
    """Combine the counts of one or more images."""
    intersection = sum(image.intersection for image in images)
    with np.errstate(invalid="ignore"):
        iou = intersection / np.asarray(sum(image.union for image in images))
    return BoundaryScores(nan_mean(np.stack([image.f1 for image in images]).T), iou)


def _f1(truth: Labels, predicted: Labels, *, radius: float, classes: int) -> NDArray[np.float64]:
    boundaries = [np.where(at_border(m, ignore=IGNORE), m, IGNORE) for m in (truth, predicted)]
    totals = [_count(boundary, classes) for boundary in boundaries]
    found = [np.zeros(classes, dtype=np.int64) for _ in boundaries]
    for first in range(0, classes, WORD):
        bits = [_bits(boundary, first, classes) for boundary in boundaries]
        for own, other, boundary, count in zip(bits, bits[::-1], boundaries, found, strict=True):
            hit = (own & _dilate_disk(other, radius)) != 0
            count += _count(boundary[hit], classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = (f / t for f, t in zip(found, totals, strict=True))
        f1 = 2 * precision * recall / (precision + recall)
    present = [total > 0 for total in totals]
    f1[(present[0] != present[1]) | (precision + recall == 0)] = 0
    f1[~present[0] & ~present[1]] = np.nan
    return np.asarray(f1, dtype=np.float64)


def _in_band(mask: Labels, width: int, classes: int) -> NDArray[np.bool_]:
    """Mark pixels with another class, or the end of the image, within `width` rows and columns."""
    band = np.ones(mask.shape, dtype=bool)
    band[width:-width, width:-width] = False
    for first in range(0, classes, WORD):
        bits = _bits(mask, first, classes)
        band |= (_dilate_box(bits, width) & ~bits) != 0
    return band


def _count(labels: Labels, classes: int) -> NDArray[np.int64]:
    return np.bincount(labels.ravel(), minlength=IGNORE + 1)[:classes].astype(np.int64)


def _bits(labels: Labels, first: int, classes: int) -> Bits:
    """Encode each pixel's class as a bit of a word, for the WORD classes from `first` on."""
    count = min(WORD, classes - first)
    kind = np.dtype(next(f"uint{size}" for size in (8, 16, 32, 64) if size >= count))
    table = np.zeros(256, dtype=kind)
    table[first : first + count] = kind.type(1) << np.arange(count, dtype=kind)
    return np.asarray(table[labels])


def _dilate_disk(bits: Bits, radius: float) -> Bits:
    """At each pixel, unite the sets of classes within `radius`."""
    height, out = len(bits), np.zeros_like(bits)
    row_union, width = bits.copy(), 0
    for rows in range(min(int(radius), height - 1), -1, -1):
        while width < int(math.sqrt(radius**2 - rows**2)):
            width += 1
            row_union[:, width:] |= bits[:, :-width]
            row_union[:, :-width] |= bits[:, width:]
        out[rows:] |= row_union[: height - rows]
        out[: height - rows] |= row_union[rows:]
    return out


def _dilate_box(bits: Bits, radius: int) -> Bits:
    """At each pixel, unite the sets of classes up to `radius` rows and columns away."""
    for transposed in (False, True):
        out = np.array(bits.T if transposed else bits)
        covered = 0
        while covered < radius:
            shift = min(2 * covered + 1, radius - covered, len(out))
            before = out.copy()
            out[shift:] |= before[: len(out) - shift]
            out[: len(out) - shift] |= before[shift:]
            covered += shift
        bits = out.T if transposed else out
    return bits
