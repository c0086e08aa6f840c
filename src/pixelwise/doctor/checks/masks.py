"""Masks that are readable and still no good labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixelwise.data.classes import IGNORE
from pixelwise.doctor.class_inference import soft
from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping
from pixelwise.doctor.pair_inspection import MAX_LEVELS

SOFT_EDGES = stopping("soft-edges", "Masks with soft edges")
RGB_WITHOUT_TABLE = stopping("rgb-without-table", "Color masks without a color table")
ALL_VOID = Kind("all-void", Severity.WARNING, "Masks without a single labeled pixel")
ONE_CLASS = Kind("single-class", Severity.NOTE, "Masks of one class only")
ONE_CLASS_EVERYWHERE = Kind("one-class-everywhere", Severity.ERROR, "Only one class in all masks")


def smoothed_masks(scan: DatasetScan) -> Iterator[Finding]:
    for pair_report in scan.pair_reports:
        mask = pair_report.mask
        if mask.fault is not None or not soft(mask):
            continue
        many = f"over {MAX_LEVELS}" if mask.too_many else str(len(mask.keys))
        what = "colors" if mask.too_many or mask.keys.ndim == 2 else "values"
        yield SOFT_EDGES.found(
            [mask.path],
            f"has {many} different {what}, some of them blends along the borders: it was "
            "smoothed, scaled or JPEG at some time",
            remedy="export the mask again without smoothing; scale masks with nearest neighbor",
            stops=pair_report.split != "test" and not scan.known(mask),
        )


def color_masks_without_a_table(scan: DatasetScan) -> Iterator[Finding]:
    if scan.source.rgb_allowed:
        return
    for pair_report in scan.pair_reports:
        mask = pair_report.mask
        if mask.fault is not None or soft(mask) or mask.keys.ndim == 1:
            continue
        shown = ", ".join(str(tuple(map(int, color))) for color in mask.keys[:4])
        more = ", ..." if len(mask.keys) > 4 else ""
        yield RGB_WITHOUT_TABLE.found(
            [mask.path],
            f"is an RGB mask with {len(mask.keys)} colors ({shown}{more}), and no table says "
            "which is which class",
            remedy=f"write {scan.root / 'classes.toml'} with a name and a color for each class, "
            "or save index masks",
            stops=pair_report.split != "test",
        )


def all_void(scan: DatasetScan) -> Iterator[Finding]:
    for pair_report in scan.usable():
        if (scan.indices(pair_report.mask) == IGNORE).all():
            yield ALL_VOID.found(
                [pair_report.mask.path],
                "is ignored in every pixel: nothing can be learned from it",
                remedy="label it, or remove it and its image",
            )


def one_class(scan: DatasetScan) -> Iterator[Finding]:
    """One mask of one class is an empty image; all of them is a failed export."""
    if scan.classes is None:
        return
    alone: dict[int, list[Finding]] = {}
    total = 0
    for pair_report in scan.usable():
        present = np.unique(scan.indices(pair_report.mask))
        present = present[present != IGNORE]
        total += len(present) > 0
        if len(present) != 1:
            continue
        name = scan.classes.names[int(present[0])]
        finding = ONE_CLASS.found(
            [pair_report.mask.path],
            f"holds {name} and nothing else",
            remedy="nothing, if the image is meant to be empty; else label it",
        )
        alone.setdefault(int(present[0]), []).append(finding)
    if len(alone) == 1 and total == sum(map(len, alone.values())):
        place, findings = next(iter(alone.items()))
        yield ONE_CLASS_EVERYWHERE.found(
            [finding.files[0] for finding in findings],
            f"all {total} masks hold {scan.classes.names[place]} and nothing else",
            remedy="export the masks again, with a number for each class",
        )
        return
    for findings in alone.values():
        yield from findings
