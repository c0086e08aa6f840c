"""Georeferenced rasters that data.toml names: their windows are the images of the dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from pixelwise.data.classes import Classes, listed, parse_class_tables
from pixelwise.data.layouts.data_toml import DataToml, StatedLabels, StatedRaster
from pixelwise.data.layouts.error_handling import collect_errors, error_context
from pixelwise.data.layouts.layout_classes import BACKGROUND, class_table
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.layouts.path_patterns import PathPattern, is_pattern
from pixelwise.data.rasters.blocks import RasterWindow, cut, group, place
from pixelwise.data.rasters.polygon_labels import VECTOR_SUFFIXES, PolygonLabels, VectorFile
from pixelwise.data.rasters.raster_file import Raster, crs_name
from pixelwise.data.rasters.raster_labels import SAMPLES, RasterLabels
from pixelwise.data.rasters.window_mask import Labels, WindowMask
from pixelwise.data.source import NO_DATA, SPLITS, Sample, Source
from pixelwise.errors import InputError, raise_problems

LAYOUT = "rasters"
_MANY = 4
"""Ratio of the width of a block to that of a window above which reading is slow."""
_MOST_SCALE = 1.5
"""Ratio of the pixel sizes above which objects have another scale."""


@dataclass(frozen=True)
class _Entry:
    """A raster, its labels and what is stated about both."""

    raster: Raster
    labels: tuple[StatedLabels, ...]
    stated: StatedRaster

    @property
    def has_polygons(self) -> bool:
        return Path(self.labels[0].path).suffix.lower() in VECTOR_SUFFIXES


def read(root: Path, toml: DataToml) -> Source:
    """List the windows of the rasters that a data.toml names.

    Raises:
        InputError: If a file cannot be used, labels and rasters cannot be aligned, or no window has
            data and labels.
    """
    notes: list[str] = []
    entries = list(_entries(root, toml))
    classes: Classes | None
    polygons = {entry.has_polygons for entry in entries}
    if len(polygons) > 1:
        raise InputError(
            f"{toml.path}: rasters: some labels are polygons and others rasters, whose numbers may "
            "mean other classes: bring them to one form, for example with `gdal_polygonize.py`"
        )
    if polygons == {True}:
        classes, has_colors, labels = _polygon_labels(root, entries, toml, notes)
    else:
        table = class_table(root, notes)
        classes, has_colors = (table.classes, table.has_colors) if table else (None, False)
        labels = _raster_labels(root, entries)
    source = Source(root, LAYOUT, {}, classes, has_colors, notes, has_no_data=True)
    source.gap = toml.windows.gap
    _check_scale(entries, notes)
    _add_samples(source, toml, entries, labels)
    return source


def _entries(root: Path, toml: DataToml) -> Iterator[_Entry]:
    """Each raster with its labels; patterns stand for several."""
    seen: set[Path] = set()
    problems: list[str] = []
    for stated in toml.rasters:
        given = stated.labels if isinstance(stated.labels, list) else [stated.labels]
        labels = [StatedLabels(path=each) if isinstance(each, str) else each for each in given]
        if not labels:
            raise InputError(f"{toml.path}: rasters.labels: is empty: name at least one file")
        for path, values in _find(root, stated.image, toml):
            own = tuple(
                each.model_copy(update={"path": each.path.format_map(_Values(values))})
                for each in labels
            )
            if path in seen:
                raise InputError(f"{path}: is named twice in {toml.path}: remove one entry")
            seen.add(path)
            with collect_errors(problems):
                yield _Entry(Raster.open(path, crs=stated.crs), own, stated)
    if problems:
        raise InputError(*problems)


class _Values(dict[str, str]):
    """Values of the names in a pattern; unknown names stay as they are."""

    def __missing__(self, key: str) -> str:
        return f"{{{key}}}"


def _find(root: Path, text: str, toml: DataToml) -> list[tuple[Path, Mapping[str, str]]]:
    if not is_pattern(text):
        return [(root / text, {})]
    found = PathPattern(text, f"{toml.path}: rasters.image").find(root)
    matches = sorted(((match.path, match.values) for match in found), key=lambda match: match[0])
    if not matches:
        raise InputError(f"{toml.path}: rasters.image: no file matches {text!r}: correct it")
    return matches


def _raster_labels(root: Path, entries: Sequence[_Entry]) -> list[Labels]:
    found: list[Labels] = []
    problems: list[str] = []
    for entry in entries:
        with collect_errors(problems):
            if len(entry.labels) > 1:
                raise InputError(
                    f"{entry.raster.path}: has {len(entry.labels)} label files: only polygons may "
                    "be in several files: name one raster"
                )
            stated = entry.labels[0]
            for key, value in (("attribute", stated.attribute), ("class", stated.name)):
                if value is not None:
                    raise InputError(
                        f"{root / stated.path}: is a raster of class numbers, which has no {key}: "
                        f"remove {key}, and name the classes in [values]"
                    )
            labels = RasterLabels(Raster.open(root / stated.path, crs=stated.crs), entry.raster)
            labels.check()
            if entry.stated.area is not None:
                raise InputError(
                    f"{root / entry.stated.area}: an area needs labels that are polygons: declare "
                    f"a nodata value in {labels.labels.path.name} instead"
                )
            found.append(labels)
    raise_problems(problems)
    return found


def _polygon_labels(
    root: Path, entries: Sequence[_Entry], toml: DataToml, notes: list[str]
) -> tuple[Classes, bool, list[Labels]]:
    """The classes, whether their colors are stated, and the polygons of each raster."""

    @cache
    def open_file(
        path: str, layer: str | None, attribute: str | None, *rest: str | None
    ) -> VectorFile:
        name, crs = rest
        return VectorFile.open(root / path, layer=layer, attribute=attribute, name=name, crs=crs)

    files = [
        [open_file(s.path, s.layer, s.attribute, s.name, s.crs) for s in entry.labels]
        for entry in entries
    ]
    distinct = list(dict.fromkeys(file for found in files for file in found))
    names = list(dict.fromkeys(name for file in distinct for name in file.class_names()))
    classes, has_colors, values, outside = _polygon_classes(root, names, toml, notes)
    kept: dict[VectorFile, set[int]] = {file: set() for file in distinct}
    labels: list[Labels] = []
    for entry, found in zip(entries, files, strict=True):
        parts = []
        for file in found:
            shapes, fids, burned = file.read(entry.raster, values)
            kept[file] |= set(fids.tolist())
            parts.append((shapes, burned))
        area = None
        if entry.stated.area is not None:
            frame = VectorFile.open(root / entry.stated.area, name="area")
            area = frame.read(entry.raster, {"area": 1})[0]
        shapes, burned = (np.concatenate(each) for each in zip(*parts, strict=True))
        labels.append(PolygonLabels(shapes, burned, outside, area))
    for file, inside in kept.items():
        users = [e.raster for e, found in zip(entries, files, strict=True) if file in found]
        _check_inside(file, inside, users)
        outside_all = file.count - len(inside)
        if outside_all:
            notes.append(
                f"{file.path.name}: {outside_all} of {file.count} polygons lie outside the rasters"
            )
    return classes, has_colors, labels


def _polygon_classes(
    root: Path, names: Sequence[str], toml: DataToml, notes: list[str]
) -> tuple[Classes, bool, dict[str, int], int]:
    """The classes, whether their colors are stated, the value of each name, and that outside."""
    others = [name for name in names if name.casefold() != BACKGROUND]
    table = class_table(root, notes)
    stated = table.classes if table else None
    has_colors = table is not None and table.has_colors
    if "class" in toml.class_tables:
        stated = parse_class_tables(toml.path, toml.class_tables)
    if toml.values or stated is None:
        with error_context(toml.path):
            classes = Classes.make([BACKGROUND, *others])
        unmapped = [name for name in classes.names if name not in toml.values]
        if toml.values and unmapped:
            raise InputError(
                f"{toml.path}: values: names no class for {listed(unmapped, most=3)}: map each "
                'class of the polygons, and "background", which is the rest'
            )
        values = dict(zip(classes.names, classes.values, strict=True))
        values |= {name: 0 for name in names if name.casefold() == BACKGROUND}
        return classes, False, values, 0
    values = dict(zip(stated.names, stated.values, strict=True))
    unknown = [name for name in names if name not in values]
    if unknown:
        raise InputError(
            f"{root}: polygons have the class {listed(unknown, most=3)}, which the class table "
            f"does not have: it has {listed(stated.names)}: add the class, or map it in [values]"
        )
    outside = next((values[n] for n in stated.names if n.casefold() == BACKGROUND), NO_DATA)
    if outside == NO_DATA:
        notes.append("the classes have no background: pixels outside all polygons are ignored")
    return stated, has_colors, values, outside


def _check_inside(file: VectorFile, fids: set[int], rasters: Sequence[Raster]) -> None:
    """Raise InputError if no polygon of a file lies in one of the rasters it belongs to."""
    if fids:
        return
    raster = rasters[0]
    ground = raster.to_ground(raster.outline())
    bounds = (*ground.min(axis=0), *ground.max(axis=0))
    named = raster.path.name if len(rasters) == 1 else f"any of {len(rasters)} rasters"
    raise InputError(
        f"{file.path}: none of its {file.count} polygons lies in {named}: they cover "
        f"{_shown(file.bounds)} in {crs_name(file.crs)}, and {raster.path.name} "
        f"{_shown(bounds)} in {crs_name(raster.crs)}: check the files and their reference systems"
    )


def _shown(bounds: Sequence[float]) -> str:
    x0, y0, x1, y1 = (f"{value:.6g}" for value in bounds)
    return f"x {x0} to {x1}, y {y0} to {y1}"


def _check_scale(entries: Sequence[_Entry], notes: list[str]) -> None:
    sizes = {entry.raster.path.name: entry.raster.pixel_size for entry in entries}
    known = sorted((size, name) for name, size in sizes.items() if size is not None)
    if known and known[-1][0] > _MOST_SCALE * known[0][0]:
        (low, first), (high, last) = known[0], known[-1]
        notes.append(
            f"the pixels of {first} have {low:.3g} m and those of {last} {high:.3g} m, so that "
            "objects have another scale: resample the rasters to one size, for example with "
            "`gdalwarp -tr`"
        )


def _add_samples(
    source: Source, toml: DataToml, entries: Sequence[_Entry], labels: Sequence[Labels]
) -> None:
    """Cut the rasters into windows with data and labels, and assign those to stated splits."""
    rasters = [entry.raster for entry in entries]
    windows = cut(rasters, toml.windows.size)
    placed = place(rasters, windows)
    groups = iter(group(placed, toml.windows.block))
    parts = iter(placed)
    has_splits = any(entry.stated.split for entry in entries)
    dropped, blocks = 0, set()
    splits: dict[str, list[Sample]] = {}
    for entry, found, own in zip(entries, windows, labels, strict=True):
        split = entry.stated.split or ("train" if has_splits else "all")
        for window in found:
            part, block = next(parts), next(groups)
            valid = entry.raster.valid(window, samples=SAMPLES)
            if (valid is not None and not valid.any()) or not own.covers(window):
                dropped += 1
                continue
            blocks.add(block)
            splits.setdefault(split, []).append(_sample(source.root, entry, own, part, block))
    if not splits:
        raise InputError(
            f"{toml.path}: no window of the rasters has both data and labels: check the nodata "
            "values, and where the labels lie"
        )
    source.splits = {name: splits[name] for name in (*SPLITS, "all") if name in splits}
    for raster, found in zip(rasters, windows, strict=True):
        if raster.block[1] > _MANY * found[0].width:
            source.notes.append(
                f"{raster.path.name} is stored in rows of {raster.block[1]} pixels, which are "
                f"decoded whole for each window: `gdal_translate -co TILED=YES {raster.path.name} "
                "OUT.tif` makes training faster"
            )
    count = sum(map(len, splits.values()))
    height, width = np.max([w[2:] for found in windows for w in found], axis=0)
    source.notes.append(
        f"{len(rasters)} rasters: {count} windows of up to {width}x{height} pixels in "
        f"{len(blocks)} blocks; {dropped} windows without data or labels are left out"
    )


def _sample(root: Path, entry: _Entry, labels: Labels, part: RasterWindow, block: str) -> Sample:
    path, window = entry.raster.path, part.window
    where = f"row {window.top}, column {window.left}"
    name = f"{sample_name(root, path)}/{window.top}_{window.left}"
    stated = root / entry.labels[0].path
    mask = stated.with_name(f"{stated.name}, {where} of {path.name}")
    return Sample(
        name,
        path.with_name(f"{path.name}, {where}"),
        WindowMask(mask, labels, entry.raster, window),
        part,
        block,
    )
