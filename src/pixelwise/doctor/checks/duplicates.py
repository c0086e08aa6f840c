"""Duplicate images: across splits they inflate scores, within one their masks may differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.measures.fingerprint import Fingerprint, near_pairs
from pixelwise.doctor.pair_inspection import InspectedPair, Scan

ACROSS = Kind("duplicate-across-splits", Severity.WARNING, "The same image in two splits")
NEAR_ACROSS = Kind(
    "near-duplicate-across-splits", Severity.WARNING, "Almost the same image in two splits"
)
TWO_MASKS = Kind("duplicate-with-other-mask", Severity.WARNING, "One image with two masks")
WITHIN = Kind("duplicate-within-split", Severity.NOTE, "The same image twice")

ORDER = ("train", "val", "test")

Fingerprinted = list[tuple[InspectedPair, Fingerprint]]


def across_splits(scan: Scan) -> Iterator[Finding]:
    """Find leakage: images of val or test that are in train, and of test that are in val."""
    splits = {split: _fingerprinted(pairs) for split, pairs in scan.splits.items()}
    for number, split in enumerate(ORDER):
        for earlier in ORDER[:number]:
            yield from _between(
                split,
                splits.get(split, []),
                earlier,
                splits.get(earlier, []),
                drawn=scan.source.val_drawn,
            )


def _fingerprinted(pairs: list[InspectedPair]) -> Fingerprinted:
    return [(p, p.image.fingerprint) for p in pairs if p.image.fingerprint is not None]


def _between(
    split: str, pairs: Fingerprinted, earlier: str, earlier_pairs: Fingerprinted, *, drawn: bool
) -> Iterator[Finding]:
    """Report the exact duplicate of each image, or else its nearest near-duplicate."""
    known = {image.digest: pair for pair, image in reversed(earlier_pairs)}
    exact: set[int] = set()
    for index, (pair, image) in enumerate(pairs):
        twin = known.get(image.digest)
        if twin is None:
            continue
        exact.add(index)
        yield ACROSS.found(
            [pair.image.path, twin.image.path],
            f"is in {split}, and with identical pixels in {earlier} as {twin.image.path.name}",
            remedy=f"remove one of the two, preferably the one in {earlier}",
        )
    nearest: dict[int, tuple[float, int]] = {}
    for index, other, correlation in near_pairs(
        [image for _, image in pairs], [image for _, image in earlier_pairs]
    ):
        if index not in exact and correlation > nearest.get(index, (0.0, 0))[0]:
            nearest[index] = correlation, other
    for index, (correlation, other) in sorted(nearest.items(), key=lambda item: -item[1][0]):
        pair, twin = pairs[index][0], earlier_pairs[other][0]
        yield NEAR_ACROSS.found(
            [pair.image.path, twin.image.path],
            f"in {split} resembles {twin.image.path.name} in {earlier} (correlation "
            f"{correlation:.3f}): its score says little about new images",
            remedy="keep copies, bursts and neighboring frames of a video in one split"
            + (", for example with --group-by" if drawn else ""),
        )


def within_split(scan: Scan) -> Iterator[Finding]:
    for split, pairs in scan.splits.items():
        groups: dict[bytes, list[InspectedPair]] = defaultdict(list)
        for pair, image in _fingerprinted(pairs):
            if pair.mask.readable:
                groups[image.digest].append(pair)
        for group in groups.values():
            if len(group) < 2:
                continue
            files = [pair.image.path for pair in group]
            others = ", ".join(path.name for path in files[1:])
            if len({pair.mask.digest for pair in group}) > 1:
                yield TWO_MASKS.found(
                    [*files, *(pair.mask.path for pair in group)],
                    f"is the same image as {others} in {split}, but their masks differ",
                    remedy="keep the right mask, remove the other pair",
                )
            else:
                yield WITHIN.found(
                    files,
                    f"is the same image as {others} in {split}: it counts twice",
                    remedy="remove one pair, unless it is intended",
                )
