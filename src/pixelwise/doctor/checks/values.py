"""The numbers in the masks against the classes, and what was assumed where no table tells."""

from __future__ import annotations

from collections.abc import Iterator

from pixelwise.doctor.checks.folder import split_line
from pixelwise.doctor.class_inference import soft
from pixelwise.doctor.dataset_scan import UNKNOWN, DatasetScan
from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping

UNKNOWN_VALUE = stopping("unknown-value", "Mask values outside the classes")
UNKNOWN_COLOR = stopping("unknown-color", "Mask colors outside the class table")
UNCLEAR_VALUES = stopping("unclear-values", "Mask values that cannot be classes")
BINARY_255 = Kind("binary-255", Severity.NOTE, "Binary masks of 0 and 255")
IGNORED_255 = Kind("ignored-255", Severity.NOTE, "255 taken as ignored")
MIXED_BINARY = Kind("mixed-binary", Severity.WARNING, "Masks of 0/255 beside masks of 0/1")
LEARNED_COLORS = Kind("learned-colors", Severity.NOTE, "Classes learned from colors")
OFF_BY_ONE = Kind("off-by-one", Severity.WARNING, "No mask holds 0")
VALUE_GAPS = Kind("value-gaps", Severity.WARNING, "Mask values with gaps between")

LARGE_IGNORED = 0.3
"""Share of ignored pixels that is more than borders and void usually take."""


def unknown_values(scan: DatasetScan) -> Iterator[Finding]:
    classes = scan.classes
    if classes is None:
        return
    table = scan.root / "classes.toml"
    for pair_report in scan.pair_reports:
        mask = pair_report.mask
        if mask.fault is not None or soft(mask):
            continue
        unknown = mask.keys[scan.indices(mask) == UNKNOWN]
        stops = pair_report.split != "test"
        if len(unknown) == 0:
            continue
        if mask.keys.ndim == 2:
            if scan.source.rgb_allowed:
                colors = ", ".join(str(tuple(map(int, color))) for color in unknown[:4])
                yield UNKNOWN_COLOR.found(
                    [mask.path],
                    f"has the color {colors}, which no class has",
                    remedy=f"add it to {table}, as a class or as ignore_color, or mend the mask",
                    stops=stops,
                )
            continue
        values = [int(value) for value in unknown]
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        remedy = f"correct the mask, or add the value to {table}"
        if values == [255] and classes.ignore is None:
            remedy = f"write `ignore = 255` into {table}, if 255 marks what is to be left out"
        elif values == [max(classes.values) + 1] and _without_zero(scan):
            remedy = (
                "the masks count from 1, the classes from 0: subtract 1 from the masks, or give "
                f"each class its `value` in {table}"
            )
        yield UNKNOWN_VALUE.found(
            [mask.path],
            f"holds {shown}; the classes are {classes.allowed()}",
            remedy=remedy,
            stops=stops,
        )


def unclear_values(scan: DatasetScan) -> Iterator[Finding]:
    """Without a table: too many values, or such as no classes have. The oddest mask is named."""
    masks = [s.mask for s in scan.pair_reports if s.mask.fault is None and len(s.mask.keys)]
    masks.sort(key=lambda mask: (-int(mask.keys.max()), -len(mask.keys), mask.path))
    for line in scan.unclear:
        sentence, remedy = split_line(line.removeprefix(f"{scan.root}: "))
        yield UNCLEAR_VALUES.found(
            [mask.path for mask in masks[:3]],
            f"shows what holds for all masks: {sentence}",
            remedy=remedy,
        )


def _without_zero(scan: DatasetScan) -> bool:
    masks = [s.mask for s in scan.pair_reports if s.mask.fault is None and s.mask.keys.ndim == 1]
    return bool(masks) and not any((mask.keys == 0).any() for mask in masks)


def assumptions(scan: DatasetScan) -> Iterator[Finding]:
    """Without a table the values decide; each decision that can be wrong is said."""
    if scan.stated or scan.classes is None:
        return
    if scan.source.rgb_allowed:
        yield LEARNED_COLORS.found(
            [],
            f"{len(scan.classes)} colors occur in the RGB masks: each was taken for a class",
            remedy=f"write {scan.root / 'classes.toml'} with a name for each color, and "
            "`ignore_color` for what is to be left out",
        )
        return
    masks = [s.mask for s in scan.pair_reports if s.mask.fault is None and s.mask.keys.ndim == 1]
    masks = [mask for mask in masks if not soft(mask)] or masks
    if not masks:
        return
    table = scan.root / "classes.toml"
    values = sorted({int(value) for mask in masks for value in mask.keys})
    if values == [0, 255]:
        yield BINARY_255.found(
            [masks[0].path],
            "and all others hold 0 and 255 only: read as background and foreground",
            remedy=f"write {table} with `ignore = 255`, if 255 is to be left out instead",
        )
        return
    if values[-1] == 255:
        yield from _about_255(scan, values)
        values = values[:-1]
    if values and values[0] == 1 and values == list(range(1, len(values) + 1)):
        yield OFF_BY_ONE.found(
            [masks[0].path],
            f"and all others count from 1 to {values[-1]}: read as {len(values)} classes, with no "
            "background",
            remedy=f"name the classes in {table} with their `value`, so that 0 is stated to be "
            "none of them",
        )
    elif len(values) > 2 and values[-1] - values[0] + 1 >= 2 * len(values):
        example = next(mask for mask in masks if (mask.keys == values[-1]).any())
        yield VALUE_GAPS.found(
            [example.path],
            f"and the others hold {', '.join(map(str, values[:8]))}"
            f"{', ...' if len(values) > 8 else ''}: numbers far apart are often gray tones of a "
            "image of the mask, or a subset of a longer list",
            remedy=f"write {table} with a name and the `value` of each class",
        )


def _about_255(scan: DatasetScan, values: list[int]) -> Iterator[Finding]:
    masks = [s.mask for s in scan.pair_reports if s.mask.fault is None and s.mask.keys.ndim == 1]
    table = scan.root / "classes.toml"
    binary = [mask for mask in masks if list(mask.keys) in ([0, 255], [255])]
    small = [mask for mask in masks if list(mask.keys) in ([0, 1], [1])]
    if values == [0, 1, 255] and binary and small and not any(len(mask.keys) > 2 for mask in masks):
        yield MIXED_BINARY.found(
            [binary[0].path, small[0].path],
            f"and {len(binary) - 1} more use 255 for the object, {len(small)} masks use 1: 255 "
            "would be ignored and those objects lost",
            remedy="save all masks with 0 and 1, or all with 0 and 255",
        )
        return
    pixels = sum(int(mask.counts.sum()) for mask in masks)
    ignored = sum(int(mask.counts[mask.keys == 255].sum()) for mask in masks)
    share = ignored / pixels
    example = max(masks, key=lambda mask: int(mask.counts[mask.keys == 255].sum()))
    yield IGNORED_255.found(
        [example.path],
        f"and others hold 255 beside {', '.join(map(str, values[:-1][:6]))}"
        f"{', ...' if len(values) > 7 else ''}: it is ignored, {100 * share:.1f} % of all pixels",
        remedy=f"write {table} with `ignore = 255` to confirm it, or with 255 as the `value` of a "
        "class",
        severity=Severity.WARNING if share > LARGE_IGNORED else Severity.NOTE,
    )
