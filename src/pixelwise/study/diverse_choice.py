"""Choose images that a network is unsure about and that differ from each other: no PyTorch.

The doubt about each class is divided by its mean over the pool, so that thin and rare classes count
as much as large ones. The doubt about an image is the root mean square over the classes, so that a
class of which the network is unusually unsure is not outweighed by the others. The choice is greedy
(k-center, arXiv:1708.00489): each image is the one with the largest product of doubt and distance
to the nearest image that is labeled or chosen.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.doctor.measures.fingerprint import Fingerprint, near_pairs

LEAST_DOUBT = 0.01
"""Doubt about a class, relative to the mean of all classes, below which it is noise: a class that
the network has never seen must not decide alone."""
SEQUENCE_IMAGES = 3
"""Numbered images of one name that make a sequence."""
SCENE_BITS, SCENE_CORRELATION = 128, 0.95
"""Largest difference of the hashes (of 512 bits) and least correlation of the thumbnails of frames
that show the same scene. Frames of CamVid 2/30 s apart have 20 to 90 bits, frames at least 10 s
apart 140 or more; of those 1 s apart, one in ten is the same scene."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """A chosen image.

    Attributes:
        index: Its index among the candidates.
        doubt: Doubt of the network: the root mean square of `class_doubt`.
        class_doubt: (C,) doubt about each class, in units of the mean of the candidates.
        distance: Distance to the nearest image that was labeled or chosen before, in units of the
            median before the first choice; infinite if there was none.
        nearest: Index of that image: labeled ones first, then candidates; -1 if there was none.
    """

    index: int
    doubt: float
    class_doubt: Floats
    distance: float
    nearest: int


def relative_doubt(doubt: NDArray[np.floating]) -> Floats:
    """Return the doubt (N, C) of images about classes in units of the mean over the images."""
    means = doubt.mean(axis=0, dtype=np.float64)
    least = max(LEAST_DOUBT * means.mean(), np.finfo(np.float64).tiny)
    relative: Floats = doubt / np.maximum(means, least)
    return relative


def choose(
    doubt: NDArray[np.floating],
    features: NDArray[np.floating],
    labeled: NDArray[np.floating],
    fingerprints: Sequence[Fingerprint | None],
    count: int,
) -> list[Choice]:
    """Choose up to `count` images, without near-duplicates of each other.

    Args:
        doubt: (N, C) doubt about each class, as in `NetworkMeasures`.
        features: (N, D) features of the candidates.
        labeled: (M, D) features of the labeled images.
        fingerprints: The fingerprints of the candidates.
        count: Number of images. Fewer are chosen if the others are near-duplicates.
    """
    by_class = relative_doubt(doubt)
    total = np.sqrt((by_class**2).mean(axis=1))
    points, known = _standardize(features, labeled)
    distances, nearest = _nearest(points, known)
    finite = distances[np.isfinite(distances) & (distances > 0)]
    unit = float(np.median(finite)) if len(finite) else 0.0
    is_open = np.ones(len(points), dtype=bool)
    choices: list[Choice] = []
    while len(choices) < count and is_open.any():
        # The first image of all has no distance; it is the one with the most doubt.
        factor = np.ones(len(points)) if np.isinf(distances).all() else distances
        score = np.where(is_open, total * factor, -1.0)
        index = int(score.argmax())
        own = distances[index]
        unit = unit or (float(own) if np.isfinite(own) and own > 0 else 0.0)
        relative = float(own / unit) if unit else float(own)
        choices.append(
            Choice(index, float(total[index]), by_class[index], relative, int(nearest[index]))
        )
        is_open[index] = False
        is_open[_near_duplicates(index, fingerprints, is_open)] = False
        closer = np.linalg.norm(points - points[index], axis=1)
        nearest = np.where(closer < distances, len(known) + index, nearest)
        distances = np.minimum(distances, closer)
    return choices


def skip_frames(
    images: Sequence[Path], fingerprints: Sequence[Fingerprint | None]
) -> dict[int, int]:
    """Find the frames of videos that show the same scene as an earlier frame.

    Images of one folder whose names differ only in the number at their end are frames if there are
    SEQUENCE_IMAGES of them. Each frame is compared with the last one that was kept.

    Returns:
        By index of a skipped image, that of the image that stands for it.
    """
    sequences: dict[tuple[Path, str], list[tuple[int, int]]] = defaultdict(list)
    for index, path in enumerate(images):
        if match := re.fullmatch(r"(.*?)(\d+)", path.stem):
            sequences[path.parent, match[1]].append((int(match[2]), index))
    skipped: dict[int, int] = {}
    for frames in sequences.values():
        if len(frames) < SEQUENCE_IMAGES:
            continue
        kept: int | None = None
        for _, index in sorted(frames):
            if kept is not None and _same_scene(fingerprints[kept], fingerprints[index]):
                skipped[index] = kept
            else:
                kept = index
    return skipped


def near_labeled(
    labeled: Sequence[Fingerprint | None], candidates: Sequence[Fingerprint | None]
) -> dict[int, int]:
    """Return, by index of a candidate, the index of a labeled image that it nearly equals."""
    rows = [i for i, found in enumerate(labeled) if found is not None]
    columns = [i for i, found in enumerate(candidates) if found is not None]
    pairs = near_pairs(
        [found for found in labeled if found is not None],
        [found for found in candidates if found is not None],
    )
    return {columns[column]: rows[row] for row, column, _ in pairs}


def _near_duplicates(
    index: int, fingerprints: Sequence[Fingerprint | None], is_open: NDArray[np.bool_]
) -> list[int]:
    rest = np.flatnonzero(is_open).tolist()
    pairs = near_labeled([fingerprints[index]], [fingerprints[i] for i in rest])
    return [rest[column] for column in pairs]


def _same_scene(first: Fingerprint | None, second: Fingerprint | None) -> bool:
    if first is None or second is None:  # flat, such as black frames
        return first is second
    bits = int(np.bitwise_count(first.bits ^ second.bits).sum())
    return bits <= SCENE_BITS and float(first.thumbnail @ second.thumbnail) >= SCENE_CORRELATION


def _standardize(
    features: NDArray[np.floating], labeled: NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Give each feature mean 0 and std 1 over all images; constant ones become 0."""
    together = np.concatenate([labeled, features]).astype(np.float64)
    std = together.std(axis=0)
    together = np.where(std > 0, (together - together.mean(axis=0)) / np.where(std > 0, std, 1), 0)
    return together[len(labeled) :], together[: len(labeled)]


def _nearest(points: Floats, known: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Return the distance of each point to the nearest known one, and its index."""
    distances = np.full(len(points), np.inf)
    nearest = np.full(len(points), -1, dtype=np.intp)
    for index, other in enumerate(known):
        own = np.linalg.norm(points - other, axis=1)
        closer = own < distances
        distances[closer], nearest[closer] = own[closer], index
    return distances, nearest
