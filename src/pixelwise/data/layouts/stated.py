"""Read a dataset as its user states it: by options, by data.toml, or by both."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.dataset_spec import DatasetSpec
from pixelwise.data.layouts.data_toml import DataToml
from pixelwise.data.layouts.layout_classes import class_table
from pixelwise.data.layouts.path_patterns import PathPattern, is_pattern
from pixelwise.data.layouts.pattern_pairs import pair_patterns
from pixelwise.data.layouts.stated_splits import assign_splits, image_lists, split_by_image_lists
from pixelwise.data.layouts.structure import Reading, find_readings
from pixelwise.data.layouts.suggestions import ambiguous, unreadable
from pixelwise.data.source import Source
from pixelwise.errors import InputError

LAYOUT = "stated"


def matches(root: Path, spec: DatasetSpec) -> bool:
    """Whether what a run recorded describes files of this folder."""
    for text in filter(None, (spec.images, spec.masks)):
        if not is_pattern(text):
            if not (root / text).is_dir():
                return False
            continue
        pattern = PathPattern(text, "the run's pattern")
        if not (root / pattern.base).is_dir() or next(pattern.find(root), None) is None:
            return False
    return True


def read_stated(root: Path, spec: DatasetSpec, toml: DataToml | None) -> Source:
    """Read the images and masks that options and data.toml describe.

    Args:
        root: The folder of the dataset.
        spec: The options; they take precedence.
        toml: The data.toml, if there is one.

    Raises:
        InputError: If a pattern or a folder cannot be used, or the files do not fit together.
    """
    images, masks = _patterns(root, spec, toml)
    return read_patterns(root, images, masks, LAYOUT, toml=toml)


def read_patterns(
    root: Path,
    images: PathPattern,
    masks: PathPattern,
    layout: str,
    *,
    toml: DataToml | None = None,
    stated: bool = True,
) -> Source:
    """Read a dataset by two patterns. Splits in lists are used if nothing else states them."""
    variable = toml.variable if toml else None
    notes = [f"{layout}: images {images.text}, masks {masks.text}"]
    splits = pair_patterns(root, images, masks, notes=notes, variable=variable, stated=stated)
    if (toml is None or toml.splits is None) and "all" in splits:
        folders = {root, root / images.base, root / masks.base}
        folders |= {(root / pattern.base).parent for pattern in (images, masks)}
        lists = next((found for f in sorted(folders) if (found := image_lists(f))), {})
        if lists:
            splits = split_by_image_lists(root, splits["all"], lists, notes)
    table = class_table(root, notes)
    if table is None:
        return Source(root, layout, splits, notes=notes)
    return Source(root, layout, splits, table.classes, table.has_colors, notes)


def assign_stated_splits(source: Source, toml: DataToml) -> None:
    """Divide the samples of a source as data.toml states, if it does."""
    if toml.splits is not None:
        samples = [sample for found in source.splits.values() for sample in found]
        source.splits = assign_splits(source.root, samples, toml.splits, toml.path, source.notes)


def _patterns(
    root: Path, spec: DatasetSpec, toml: DataToml | None
) -> tuple[PathPattern, PathPattern]:
    """The pattern of the images and that of the masks; folders are examined for theirs."""
    prefix = "the run's " if spec.from_run else "--"
    given: dict[str, tuple[str, str]] = {}
    if toml is not None:
        own = {"images": toml.images, "masks": toml.masks}
        given = {kind: (text, f"{toml.path}: {kind}") for kind, text in own.items() if text}
    options = {"images": spec.images, "masks": spec.masks}
    given |= {kind: (text, f"{prefix}{kind}") for kind, text in options.items() if text}
    given = {kind: given[kind] for kind in ("images", "masks") if kind in given}
    patterns = {k: PathPattern(*entry) for k, entry in given.items() if is_pattern(entry[0])}
    if len(patterns) == 2:
        return patterns["images"], patterns["masks"]
    folders = {k: _folder(root, *entry) for k, entry in given.items() if k not in patterns}
    if patterns:
        ((kind, pattern),) = patterns.items()
        other = "masks" if kind == "images" else "images"
        if other not in folders:
            raise pattern.error(f"--{other} is missing: state both, or a folder")
        text, origin = given[other]
        beside = PathPattern(f"{text.rstrip('/')}/**/{{id}}", origin)
        return (pattern, beside) if kind == "images" else (beside, pattern)
    if not all(folder.resolve().is_relative_to(root.resolve()) for folder in folders.values()):
        both = [
            PathPattern(f"{text.rstrip('/')}/**/{{id}}", origin) for text, origin in given.values()
        ]
        if len(both) == 2:
            return both[0], both[1]
    readings = find_readings(root, **folders)
    if len(readings) > 1:
        raise ambiguous(root, readings)
    if not readings:
        raise unreadable(root, folders)
    return as_patterns(readings[0])


def as_patterns(reading: Reading) -> tuple[PathPattern, PathPattern]:
    """The patterns of a detected reading."""
    return PathPattern(reading.images, "--images"), PathPattern(reading.masks, "--masks")


def _folder(root: Path, text: str, origin: str) -> Path:
    folder = root / text
    if not folder.is_dir():
        raise InputError(f"{folder}: does not exist: correct {origin}, a folder in {root}")
    return folder
