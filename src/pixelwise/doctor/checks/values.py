"""Unknown mask values, and what was assumed about them without a class table."""

from __future__ import annotations

from collections.abc import Iterator

from pixelwise.data.classes import UNKNOWN, Classes, unpack_rgb
from pixelwise.doctor.checks.folder import split_line
from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping
from pixelwise.doctor.pair_inspection import InspectedMask, Scan

UNKNOWN_VALUE = stopping("unknown-value", "Mask values outside the classes")
UNKNOWN_COLOR = stopping("unknown-color", "Mask colors outside the class table")
UNCLEAR_VALUES = stopping("unclear-values", "Mask values that cannot be classes")
BINARY_255 = Kind("binary-255", Severity.NOTE, "Binary masks of 0 and 255")
IGNORED_255 = Kind("ignored-255", Severity.NOTE, "Value 255 is ignored")
LEARNED_COLORS = Kind("learned-colors", Severity.NOTE, "Classes inferred from colors")
OFF_BY_ONE = Kind("off-by-one", Severity.WARNING, "No mask holds 0")
VALUE_GAPS = Kind("value-gaps", Severity.WARNING, "Mask values with gaps between them")

LARGE_IGNORED = 0.3
"""Share of ignored pixels that is more than borders and void regions usually have."""


def unknown_values(scan: Scan) -> Iterator[Finding]:
    if scan.classes is None:
        return
    table = scan.root / "classes.toml"
    for pair in scan.pairs:
        mask = pair.mask
        unknown = mask.values[scan.class_indices(mask) == UNKNOWN]
        if not mask.readable or mask.smoothed or len(unknown) == 0:
            continue
        stops = pair.split != "test"
        if not mask.is_rgb:
            values = unknown.tolist()
            yield UNKNOWN_VALUE.found(
                [mask.path],
                f"holds {_listed(values, 6)}, but the classes are {scan.classes.allowed()}",
                remedy=_remedy(scan, scan.classes, values),
                stops=stops,
            )
        elif scan.source.rgb_allowed:
            colors = ", ".join(map(str, unpack_rgb(unknown[:4])))
            yield UNKNOWN_COLOR.found(
                [mask.path],
                f"holds the color {colors}, which no class has",
                remedy=f"add it to {table}, as a class or as ignore_color, or correct the mask",
                stops=stops,
            )


def _remedy(scan: Scan, classes: Classes, unknown: list[int]) -> str:
    table = scan.root / "classes.toml"
    if unknown == [255] and classes.ignore is None:
        return f"write `ignore = 255` into {table}, if 255 marks pixels to ignore"
    masks = _index_masks(scan)
    if unknown == [max(classes.values) + 1] and not any((m.values == 0).any() for m in masks):
        return (
            "the masks count from 1, the classes from 0: subtract 1 from the masks, or give each "
            f"class its `value` in {table}"
        )
    return f"correct the mask, or add the value to {table}"


def unclear_values(scan: Scan) -> Iterator[Finding]:
    """Without a table: values that cannot be classes. Names the most unusual masks."""
    masks = [p.mask for p in scan.pairs if p.mask.readable and len(p.mask.values)]
    masks.sort(key=lambda mask: (-int(mask.values.max()), -len(mask.values), mask.path))
    for line in scan.class_problems:
        message, remedy = split_line(line.removeprefix(f"{scan.root}: "))
        yield UNCLEAR_VALUES.found(
            [mask.path for mask in masks[:3]],
            f"is one example of a problem in all masks: {message}",
            remedy=remedy,
        )


def _index_masks(scan: Scan) -> list[InspectedMask]:
    masks = [pair.mask for pair in scan.pairs]
    return [mask for mask in masks if mask.readable and len(mask.values) and not mask.is_rgb]


def assumptions(scan: Scan) -> Iterator[Finding]:
    """Report each assumption that was made without a table and may be wrong."""
    if scan.has_class_table or scan.classes is None:
        return
    table = scan.root / "classes.toml"
    if scan.source.rgb_allowed:
        yield LEARNED_COLORS.found(
            [],
            f"{len(scan.classes)} colors occur in the RGB masks: each became a class",
            remedy=f"write {table} with a name for each color, and `ignore_color` for pixels to "
            "ignore",
        )
        return
    masks = _index_masks(scan)
    masks = [mask for mask in masks if not mask.smoothed] or masks
    if not masks:
        return
    values = sorted({int(value) for mask in masks for value in mask.values})
    if values == [0, 255]:
        yield BINARY_255.found(
            [masks[0].path],
            "and all others hold only 0 and 255: they are read as background and foreground",
            remedy=f"write {table} with `ignore = 255`, if 255 marks pixels to ignore instead",
        )
        return
    if values[-1] == 255:
        yield from _about_255(scan, values)
        values = values[:-1]
    if values and values == list(range(1, len(values) + 1)):
        yield OFF_BY_ONE.found(
            [masks[0].path],
            f"and all others count from 1 to {values[-1]}: they are read as {len(values)} classes "
            "without a background",
            remedy=f"name the classes in {table} with their `value`, so that 0 is none of them",
        )
    elif len(values) > 2 and values[-1] - values[0] + 1 >= 2 * len(values):
        example = next(mask for mask in masks if (mask.values == values[-1]).any())
        yield VALUE_GAPS.found(
            [example.path],
            f"and the others hold {_listed(values, 8)}: values far apart are often gray tones of a "
            "rendered mask, or a subset of a longer list",
            remedy=f"write {table} with a name and the `value` of each class",
        )


def _about_255(scan: Scan, values: list[int]) -> Iterator[Finding]:
    masks = _index_masks(scan)
    counts = [int(mask.counts[mask.values == 255].sum()) for mask in masks]
    share = sum(counts) / sum(int(mask.counts.sum()) for mask in masks)
    yield IGNORED_255.found(
        [masks[counts.index(max(counts))].path],
        f"and others hold 255 beside {_listed(values[:-1], 6)}: it is ignored, {100 * share:.1f} % "
        "of all pixels",
        remedy=f"write {scan.root / 'classes.toml'} with `ignore = 255` to confirm it, or with 255 "
        "as the `value` of a class",
        severity=Severity.WARNING if share > LARGE_IGNORED else Severity.NOTE,
    )


def _listed(values: list[int], most: int) -> str:
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")
