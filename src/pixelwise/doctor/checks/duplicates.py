"""The same image twice: in two splits scores are too good, in one the masks may differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.measures.fingerprint import Fingerprint, near_pairs
from pixelwise.doctor.pair_inspection import PairReport

ACROSS = Kind("duplicate-across-splits", Severity.WARNING, "The same image in two splits")
NEAR_ACROSS = Kind(
    "near-duplicate-across-splits", Severity.WARNING, "Almost the same image in two splits"
)
TWO_MASKS = Kind("duplicate-with-other-mask", Severity.WARNING, "One image with two masks")
WITHIN = Kind("duplicate-within-split", Severity.NOTE, "The same image twice")

ORDER = ("train", "val", "test")


def across_splits(scan: DatasetScan) -> Iterator[Finding]:
    """Leakage: what val or test shares with train, and test with val; nearest partner only."""
    splits = scan.splits
    for place, split in enumerate(ORDER):
        for earlier in ORDER[:place]:
            yield from _between(
                split, _marked(splits.get(split, [])), earlier, _marked(splits.get(earlier, []))
            )


def _marked(pair_reports: list[PairReport]) -> list[tuple[PairReport, Fingerprint]]:
    return [(s, s.image.mark) for s in pair_reports if s.image.mark is not None]


def _between(
    split: str,
    later: list[tuple[PairReport, Fingerprint]],
    earlier: str,
    before: list[tuple[PairReport, Fingerprint]],
) -> Iterator[Finding]:
    known = {
        mark.digest: pair_report for pair_report, mark in reversed(before) if mark.copy is not None
    }
    exact: set[int] = set()
    for place, (pair_report, mark) in enumerate(later):
        twin = known.get(mark.digest)
        if twin is None:
            continue
        exact.add(place)
        yield ACROSS.found(
            [pair_report.image.path, twin.image.path],
            f"is in {split} and, pixel for pixel, in {earlier} as {twin.image.path.name}",
            remedy=f"remove one of the two, best the one in {earlier}",
        )
    nearest: dict[int, tuple[float, int]] = {}
    pairs = near_pairs([mark for _, mark in later], [mark for _, mark in before])
    for place, other, likeness in pairs:
        if place not in exact and likeness > nearest.get(place, (0.0, 0))[0]:
            nearest[place] = likeness, other
    for place, (likeness, other) in sorted(nearest.items(), key=lambda item: -item[1][0]):
        pair_report, twin = later[place][0], before[other][0]
        yield NEAR_ACROSS.found(
            [pair_report.image.path, twin.image.path],
            f"in {split} looks like {twin.image.path.name} in {earlier} ({100 * likeness:.1f} % "
            "alike): scores on it say little about new images",
            remedy="keep copies, bursts and neighboring frames of a video in one split",
        )


def within_a_split(scan: DatasetScan) -> Iterator[Finding]:
    for split, pair_reports in scan.splits.items():
        groups: dict[bytes, list[PairReport]] = defaultdict(list)
        for pair_report, mark in _marked(pair_reports):
            if mark.copy is not None and pair_report.mask.fault is None:
                groups[mark.digest].append(pair_report)
        for group in groups.values():
            if len(group) < 2:
                continue
            files = [pair_report.image.path for pair_report in group]
            others = ", ".join(path.name for path in files[1:])
            if len({pair_report.mask.mark for pair_report in group}) > 1:
                yield TWO_MASKS.found(
                    [*files, *(pair_report.mask.path for pair_report in group)],
                    f"is the same image as {others} in {split}, but their masks differ",
                    remedy="keep the right mask, remove the other pair",
                )
            else:
                yield WITHIN.found(
                    files,
                    f"is the same image as {others} in {split}: it counts twice",
                    remedy="remove one pair, unless it is meant",
                )
