"""The numbers in the masks against the classes, and what was assumed where no table tells."""

from __future__ import annotations

from collections.abc import Iterator

from pixelwise.doctor.checks.folder import split_line
from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping
from pixelwise.doctor.settling import soft
from pixelwise.doctor.survey import UNKNOWN, Survey

UNKNOWN_VALUE = stopping("unknown-value", "Mask values outside the classes")
UNKNOWN_COLOUR = stopping("unknown-colour", "Mask colours outside the class table")
UNCLEAR_VALUES = stopping("unclear-values", "Mask values that cannot be classes")
BINARY_255 = Kind("binary-255", Severity.NOTE, "Binary masks of 0 and 255")
IGNORED_255 = Kind("ignored-255", Severity.NOTE, "255 taken as ignored")
MIXED_BINARY = Kind("mixed-binary", Severity.WARNING, "Masks of 0/255 beside masks of 0/1")
LEARNT_COLOURS = Kind("learnt-colours", Severity.NOTE, "Classes learnt from colours")
OFF_BY_ONE = Kind("off-by-one", Severity.WARNING, "No mask holds 0")
VALUE_GAPS = Kind("value-gaps", Severity.WARNING, "Mask values with gaps between")

LARGE_IGNORED = 0.3
"""Share of ignored pixels that is more than borders and void usually take."""


def unknown_values(survey: Survey) -> Iterator[Finding]:
    classes = survey.classes
    if classes is None:
        return
    table = survey.root / "classes.toml"
    for sighting in survey.sightings:
        mask = sighting.mask
        if mask.fault is not None or soft(mask):
            continue
        unknown = mask.keys[survey.indices(mask) == UNKNOWN]
        stops = sighting.split != "test"
        if len(unknown) == 0:
            continue
        if mask.keys.ndim == 2:
            if survey.source.rgb_allowed:
                colours = ", ".join(str(tuple(map(int, colour))) for colour in unknown[:4])
                yield UNKNOWN_COLOUR.found(
                    [mask.path],
                    f"has the colour {colours}, which no class has",
                    remedy=f"add it to {table}, as a class or as ignore_colour, or mend the mask",
                    stops=stops,
                )
            continue
        values = [int(value) for value in unknown]
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        remedy = f"correct the mask, or add the value to {table}"
        if values == [255] and classes.ignore is None:
            remedy = f"write `ignore = 255` into {table}, if 255 marks what is to be left out"
        elif values == [max(classes.values) + 1] and _without_zero(survey):
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


def unclear_values(survey: Survey) -> Iterator[Finding]:
    """Without a table: too many values, or such as no classes have. The oddest mask is named."""
    masks = [s.mask for s in survey.sightings if s.mask.fault is None and len(s.mask.keys)]
    masks.sort(key=lambda mask: (-int(mask.keys.max()), -len(mask.keys), mask.path))
    for line in survey.unclear:
        sentence, remedy = split_line(line.removeprefix(f"{survey.root}: "))
        yield UNCLEAR_VALUES.found(
            [mask.path for mask in masks[:3]],
            f"shows what holds for all masks: {sentence}",
            remedy=remedy,
        )


def _without_zero(survey: Survey) -> bool:
    masks = [s.mask for s in survey.sightings if s.mask.fault is None and s.mask.keys.ndim == 1]
    return bool(masks) and not any((mask.keys == 0).any() for mask in masks)


def assumptions(survey: Survey) -> Iterator[Finding]:
    """Without a table the values decide; each decision that can be wrong is said."""
    if survey.stated or survey.classes is None:
        return
    if survey.source.rgb_allowed:
        yield LEARNT_COLOURS.found(
            [],
            f"{len(survey.classes)} colours occur in the RGB masks: each was taken for a class",
            remedy=f"write {survey.root / 'classes.toml'} with a name for each colour, and "
            "`ignore_colour` for what is to be left out",
        )
        return
    masks = [s.mask for s in survey.sightings if s.mask.fault is None and s.mask.keys.ndim == 1]
    masks = [mask for mask in masks if not soft(mask)] or masks
    if not masks:
        return
    table = survey.root / "classes.toml"
    values = sorted({int(value) for mask in masks for value in mask.keys})
    if values == [0, 255]:
        yield BINARY_255.found(
            [masks[0].path],
            "and all others hold 0 and 255 only: read as background and foreground",
            remedy=f"write {table} with `ignore = 255`, if 255 is to be left out instead",
        )
        return
    if values[-1] == 255:
        yield from _about_255(survey, values)
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
            f"{', ...' if len(values) > 8 else ''}: numbers far apart are often grey tones of a "
            "picture of the mask, or a subset of a longer list",
            remedy=f"write {table} with a name and the `value` of each class",
        )


def _about_255(survey: Survey, values: list[int]) -> Iterator[Finding]:
    masks = [s.mask for s in survey.sightings if s.mask.fault is None and s.mask.keys.ndim == 1]
    table = survey.root / "classes.toml"
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
