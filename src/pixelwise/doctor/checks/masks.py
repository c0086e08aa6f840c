"""Masks that can be read but are not usable labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixelwise.data.classes import IGNORE, unpack_rgb
from pixelwise.doctor.checks.classes import ignored_hint
from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping
from pixelwise.doctor.pair_inspection import MAX_LEVELS, Scan

SOFT_EDGES = stopping("soft-edges", "Masks with soft edges")
RGB_WITHOUT_TABLE = stopping("rgb-without-table", "RGB masks without a color table")
ALL_VOID = Kind("all-void", Severity.WARNING, "Masks without a labeled pixel")
ONE_CLASS = Kind("single-class", Severity.NOTE, "Masks with a single class")
ONE_CLASS_EVERYWHERE = Kind("one-class-everywhere", Severity.ERROR, "A single class in all masks")


def smoothed_masks(scan: Scan) -> Iterator[Finding]:
    for pair in scan.pairs:
        mask = pair.mask
        if not mask.readable or not mask.smoothed:
            continue
        many = f"over {MAX_LEVELS}" if mask.too_many else str(len(mask.values))
        noun = "colors" if mask.is_rgb else "values"
        yield SOFT_EDGES.found(
            [mask.path],
            f"has {many} different {noun}, some of them blended along the borders: it was "
            "smoothed, resized or saved as JPEG",
            remedy="export the mask again without smoothing; resize masks with nearest neighbor",
            stops=pair.split != "test" and not scan.is_known(mask),
        )


def rgb_masks_without_table(scan: Scan) -> Iterator[Finding]:
    if scan.source.rgb_allowed:
        return
    for pair in scan.pairs:
        mask = pair.mask
        if not mask.readable or mask.smoothed or not mask.is_rgb:
            continue
        shown = ", ".join(map(str, unpack_rgb(mask.values[:4])))
        more = ", ..." if len(mask.values) > 4 else ""
        yield RGB_WITHOUT_TABLE.found(
            [mask.path],
            f"is an RGB mask with {len(mask.values)} colors ({shown}{more}), but no table gives "
            "the class of each color",
            remedy=f"write {scan.root / 'classes.toml'} with a name and a color for each class, "
            "or save index masks",
            stops=pair.split != "test",
        )


def all_void(scan: Scan) -> Iterator[Finding]:
    for pair in scan.usable():
        if (scan.class_indices(pair.mask) == IGNORE).all():
            yield ALL_VOID.found(
                [pair.mask.path],
                "is ignored at every pixel: the network learns nothing from it",
                remedy="label it, or remove it and its image",
            )


def one_class(scan: Scan) -> Iterator[Finding]:
    """A mask with one class is an empty image; if all masks have the same, the export failed."""
    if scan.classes is None:
        return
    single: dict[int, list[Finding]] = {}
    labeled = 0
    for pair in scan.usable():
        present = np.unique(scan.class_indices(pair.mask))
        present = present[present != IGNORE]
        labeled += len(present) > 0
        if len(present) != 1:
            continue
        finding = ONE_CLASS.found(
            [pair.mask.path],
            f"holds only {scan.classes.names[int(present[0])]}",
            remedy="none needed if the image is meant to be empty; otherwise label it",
        )
        single.setdefault(int(present[0]), []).append(finding)
    if len(single) == 1 and labeled == sum(map(len, single.values())):
        index, findings = next(iter(single.items()))
        yield ONE_CLASS_EVERYWHERE.found(
            [finding.files[0] for finding in findings],
            f"all {labeled} masks hold only {scan.classes.names[index]}",
            remedy=f"export the masks again, with a value for each class{ignored_hint(scan)}",
        )
        return
    for findings in single.values():
        yield from findings
