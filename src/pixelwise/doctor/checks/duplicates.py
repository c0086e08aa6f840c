"""The same picture twice: in two splits scores are too good, in one the masks may differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from pixelwise.doctor.diagnosis import Finding, Kind, Severity
from pixelwise.doctor.measures.fingerprint import Fingerprint, near_pairs
from pixelwise.doctor.sighting import Sighting
from pixelwise.doctor.survey import Survey

ACROSS = Kind("duplicate-across-splits", Severity.WARNING, "The same image in two splits")
NEAR_ACROSS = Kind(
    "near-duplicate-across-splits", Severity.WARNING, "Almost the same image in two splits"
)
TWO_MASKS = Kind("duplicate-with-other-mask", Severity.WARNING, "One image with two masks")
WITHIN = Kind("duplicate-within-split", Severity.NOTE, "The same image twice")

ORDER = ("train", "val", "test")


def across_splits(survey: Survey) -> Iterator[Finding]:
    """Leakage: what val or test shares with train, and test with val; nearest partner only."""
    splits = survey.splits
    for place, split in enumerate(ORDER):
        for earlier in ORDER[:place]:
            yield from _between(
                split, _marked(splits.get(split, [])), earlier, _marked(splits.get(earlier, []))
            )


def _marked(sightings: list[Sighting]) -> list[tuple[Sighting, Fingerprint]]:
    return [(s, s.image.mark) for s in sightings if s.image.mark is not None]


def _between(
    split: str,
    later: list[tuple[Sighting, Fingerprint]],
    earlier: str,
    before: list[tuple[Sighting, Fingerprint]],
) -> Iterator[Finding]:
    known = {mark.digest: sighting for sighting, mark in reversed(before) if mark.copy is not None}
    exact: set[int] = set()
    for place, (sighting, mark) in enumerate(later):
        twin = known.get(mark.digest)
        if twin is None:
            continue
        exact.add(place)
        yield ACROSS.found(
            [sighting.image.path, twin.image.path],
            f"is in {split} and, pixel for pixel, in {earlier} as {twin.image.path.name}",
            remedy=f"remove one of the two, best the one in {earlier}",
        )
    nearest: dict[int, tuple[float, int]] = {}
    pairs = near_pairs([mark for _, mark in later], [mark for _, mark in before])
    for place, other, likeness in pairs:
        if place not in exact and likeness > nearest.get(place, (0.0, 0))[0]:
            nearest[place] = likeness, other
    for place, (likeness, other) in sorted(nearest.items(), key=lambda item: -item[1][0]):
        sighting, twin = later[place][0], before[other][0]
        yield NEAR_ACROSS.found(
            [sighting.image.path, twin.image.path],
            f"in {split} looks like {twin.image.path.name} in {earlier} ({100 * likeness:.1f} % "
            "alike): scores on it say little about new pictures",
            remedy="keep copies, bursts and neighbouring frames of a video in one split",
        )


def within_a_split(survey: Survey) -> Iterator[Finding]:
    for split, sightings in survey.splits.items():
        groups: dict[bytes, list[Sighting]] = defaultdict(list)
        for sighting, mark in _marked(sightings):
            if mark.copy is not None and sighting.mask.fault is None:
                groups[mark.digest].append(sighting)
        for group in groups.values():
            if len(group) < 2:
                continue
            files = [sighting.image.path for sighting in group]
            others = ", ".join(path.name for path in files[1:])
            if len({sighting.mask.mark for sighting in group}) > 1:
                yield TWO_MASKS.found(
                    [*files, *(sighting.mask.path for sighting in group)],
                    f"is the same picture as {others} in {split}, but their masks differ",
                    remedy="keep the right mask, remove the other pair",
                )
            else:
                yield WITHIN.found(
                    files,
                    f"is the same picture as {others} in {split}: it counts twice",
                    remedy="remove one pair, unless it is meant",
                )
