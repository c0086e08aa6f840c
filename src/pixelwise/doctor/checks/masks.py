"""Masks that are readable and still no good labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixelwise.data.classes import IGNORE
from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping
from pixelwise.doctor.settling import soft
from pixelwise.doctor.sighting import MAX_LEVELS
from pixelwise.doctor.survey import Survey

SOFT_EDGES = stopping("soft-edges", "Masks with soft edges")
RGB_WITHOUT_TABLE = stopping("rgb-without-table", "Colour masks without a colour table")
ALL_VOID = Kind("all-void", Severity.WARNING, "Masks without a single labelled pixel")
ONE_CLASS = Kind("single-class", Severity.NOTE, "Masks of one class only")
ONE_CLASS_EVERYWHERE = Kind("one-class-everywhere", Severity.ERROR, "Only one class in all masks")


def smoothed_masks(survey: Survey) -> Iterator[Finding]:
    for sighting in survey.sightings:
        mask = sighting.mask
        if mask.fault is not None or not soft(mask):
            continue
        many = f"over {MAX_LEVELS}" if mask.too_many else str(len(mask.keys))
        what = "colours" if mask.too_many or mask.keys.ndim == 2 else "values"
        yield SOFT_EDGES.found(
            [mask.path],
            f"has {many} different {what}, some of them blends along the borders: it was "
            "smoothed, scaled or JPEG at some time",
            remedy="export the mask again without smoothing; scale masks with nearest neighbour",
            stops=sighting.split != "test" and not survey.known(mask),
        )


def colour_masks_without_a_table(survey: Survey) -> Iterator[Finding]:
    if survey.source.rgb_allowed:
        return
    for sighting in survey.sightings:
        mask = sighting.mask
        if mask.fault is not None or soft(mask) or mask.keys.ndim == 1:
            continue
        shown = ", ".join(str(tuple(map(int, colour))) for colour in mask.keys[:4])
        more = ", ..." if len(mask.keys) > 4 else ""
        yield RGB_WITHOUT_TABLE.found(
            [mask.path],
            f"is an RGB mask with {len(mask.keys)} colours ({shown}{more}), and no table says "
            "which is which class",
            remedy=f"write {survey.root / 'classes.toml'} with a name and a colour for each class, "
            "or save index masks",
            stops=sighting.split != "test",
        )


def all_void(survey: Survey) -> Iterator[Finding]:
    for sighting in survey.usable():
        if (survey.indices(sighting.mask) == IGNORE).all():
            yield ALL_VOID.found(
                [sighting.mask.path],
                "is ignored in every pixel: nothing can be learnt from it",
                remedy="label it, or remove it and its image",
            )


def one_class(survey: Survey) -> Iterator[Finding]:
    """One mask of one class is an empty picture; all of them is a failed export."""
    if survey.classes is None:
        return
    alone: dict[int, list[Finding]] = {}
    total = 0
    for sighting in survey.usable():
        present = np.unique(survey.indices(sighting.mask))
        present = present[present != IGNORE]
        total += len(present) > 0
        if len(present) != 1:
            continue
        name = survey.classes.names[int(present[0])]
        finding = ONE_CLASS.found(
            [sighting.mask.path],
            f"holds {name} and nothing else",
            remedy="nothing, if the picture is meant to be empty; else label it",
        )
        alone.setdefault(int(present[0]), []).append(finding)
    if len(alone) == 1 and total == sum(map(len, alone.values())):
        place, findings = next(iter(alone.items()))
        yield ONE_CLASS_EVERYWHERE.found(
            [finding.files[0] for finding in findings],
            f"all {total} masks hold {survey.classes.names[place]} and nothing else",
            remedy="export the masks again, with a number for each class",
        )
        return
    for findings in alone.values():
        yield from findings
