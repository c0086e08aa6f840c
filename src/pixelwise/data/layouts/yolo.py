"""YOLO polygons: data.yaml, images/SPLIT/NAME.jpg, labels/SPLIT/NAME.txt (`class x1 y1 ...`).

The paths in data.yaml are resolved as Ultralytics does
(https://docs.ultralytics.com/datasets/segment): `train`, `val` and `test` are a folder, a list file
with one image per line, or a list of either, relative to `path`. If none of them exists on this
machine, images/ and labels/ are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.data import json_yaml
from pixelwise.data.class_tables import read_lines
from pixelwise.data.image_files import list_images
from pixelwise.data.layouts.error_handling import collect_errors, error_context
from pixelwise.data.layouts.folder_names import (
    ALIASES,
    data_yaml,
    first_names,
    folders_in,
    split_folders,
)
from pixelwise.data.layouts.layout_classes import classes_above_background
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.polygons import Polygons, RegionMask, as_ring
from pixelwise.data.source import SPLITS, Sample, Source
from pixelwise.errors import InputError, raise_problems

DESCRIPTION = "YOLO polygons: data.yaml with names, images/SPLIT/ and labels/SPLIT/NAME.txt"

_TEXT = frozenset({".txt"})
_MARGIN = 0.01
"""Tolerance, as a fraction of the image's size, for corners outside the image."""


@dataclass
class _ImageSet:
    """Images of one split that come from one folder or list file.

    Attributes:
        images: The image files.
        labels: Folder of their label files; None if it also contains labels of other images.
        origin: The folder or list file.
    """

    images: list[Path]
    labels: Path | None
    origin: Path


def detect(root: Path) -> bool:
    path = data_yaml(root)
    if path is None:
        return False
    if any(first_names(labels, _TEXT) for _, labels in _label_folders(root).values()):
        return True
    try:
        paths = _paths_in_yaml(root, path)
    except InputError:  # `read` reports it
        return False
    return any(_has_labels(entry) for entries in paths.values() for entry in entries)


def _has_labels(entry: Path) -> bool:
    """Whether a folder or list file leads to label files, judged by a few of its entries."""
    if entry.is_dir():
        folders = [entry, *list(folders_in(entry).values())[:8]]
        return any(first_names(_label_file(folder / "_").parent, _TEXT) for folder in folders)
    with entry.open(encoding="utf-8-sig", errors="replace") as stream:
        lines = [stream.readline().strip() for _ in range(8)]
    return any(line and _label_file(_listed_image(entry, line)).is_file() for line in lines)


def _label_file(image: Path) -> Path:
    """The label file of an image, as in Ultralytics: the last `images` in the path is `labels`."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _paths_in_yaml(root: Path, path: Path) -> dict[str, list[Path]]:
    """The existing folders and list files in data.yaml by split; empty if none exists.

    Raises:
        InputError: If some exist and others do not; a test split may be missing.
    """
    content = json_yaml.read_yaml(path)
    base = content.get("path")
    bases = [root / base, root] if isinstance(base, str) else [root]
    paths: dict[str, list[Path]] = {}
    missing = []
    for split, aliases in ALIASES.items():
        value = next((content[alias] for alias in aliases if content.get(alias)), None)
        for entry in value if isinstance(value, list) else [value] if value else []:
            if not isinstance(entry, str):
                raise InputError(
                    f"{path}: {split}: {entry!r} is not a path: write a folder or a file"
                )
            resolved = _resolve(bases, entry)
            if resolved is not None:
                paths.setdefault(split, []).append(resolved)
            elif split != "test":
                missing.append(
                    f"{path}: {split}: {entry} does not exist in {bases[0]}: correct the path"
                )
    if paths:
        raise_problems(missing)
    return paths


def _resolve(bases: list[Path], entry: str) -> Path | None:
    """The existing path of an entry. Roboflow writes `../train/images` for train/images."""
    for base in bases:
        for candidate in (base / entry, base / entry.removeprefix("../")):
            if candidate.exists():
                return candidate
    return None


def _listed_image(file: Path, line: str) -> Path:
    """The image in a line of a list file, relative to that file."""
    return file.parent / line.removeprefix("./")


def _image_sets(root: Path, path: Path) -> dict[str, list[_ImageSet]]:
    paths = _paths_in_yaml(root, path)
    if paths:
        return {
            split: [image_set for entry in entries for image_set in _images_of(entry)]
            for split, entries in paths.items()
        }
    return {
        split: [_ImageSet(list_images(images), labels, images)]
        for split, (images, labels) in _label_folders(root).items()
    }


def _images_of(entry: Path) -> list[_ImageSet]:
    """The images of a folder and its subfolders, or of a list file."""
    if entry.is_dir():
        folders = (entry, *sorted(f for f in entry.rglob("*") if f.is_dir()))
        sets = [_ImageSet(list_images(f), _label_file(f / "_").parent, f) for f in folders]
        return [image_set for image_set in sets if image_set.images] or sets[:1]
    images, problems = [], []
    for number, line in enumerate(read_lines(entry), start=1):
        if line.strip():
            image = _listed_image(entry, line.strip())
            if image.is_file():
                images.append(image)
            else:
                problems.append(f"{entry}: line {number}: {image} does not exist: correct the line")
    raise_problems(problems)
    return [_ImageSet(images, None, entry)]


def _label_folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """images/ and labels/ of each split (or `all`), with the splits inside them or around them."""
    images, labels = root / "images", root / "labels"
    if images.is_dir() and labels.is_dir():
        splits = split_folders(images)
        return {s: (f, labels / f.name) for s, f in splits.items()} or {"all": (images, labels)}
    return {
        split: (folder / "images", folder / "labels")
        for split, folder in split_folders(root).items()
        if "labels" in folders_in(folder)
    }


def class_names(path: Path) -> list[str]:
    """Read `names` of a data.yaml: a list, or a mapping from consecutive numbers 0, 1, ...

    Raises:
        InputError: If there are no names, or a number is missing.
    """
    names: Any = json_yaml.read_yaml(path).get("names")
    if isinstance(names, dict):
        keys = [str(key) for key in names if isinstance(key, str | int)]
        if sorted(keys) != sorted(map(str, range(len(names)))):
            raise InputError(f"{path}: names have gaps in their numbers: number them 0, 1, 2, ...")
        names = [name for _, name in sorted((int(key), name) for key, name in names.items())]
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: has no names: write `names: [first, second]`")
    if not all(isinstance(name, str | int | float) for name in names):
        raise InputError(f"{path}: names are {json_yaml.brief(names)}: write each as text")
    return [str(name) for name in names]


def read(root: Path) -> Source:
    path = data_yaml(root)
    assert path is not None  # guaranteed by detect
    names = class_names(path)
    classes, value_of = classes_above_background(path, names)
    values = [value_of[name] for name in names]
    problems: list[str] = []
    splits: dict[str, list[Sample]] = {}
    empty = total = 0
    sets = _image_sets(root, path)
    for split, image_set in ((s, each) for s in (*SPLITS, "all") for each in sets.get(s, ())):
        for image in image_set.images:
            file = _label_file(image)
            if image_set.labels is not None:
                file = image_set.labels / f"{image.stem}.txt"
            with collect_errors(problems):
                regions = _regions(file, values) if file.is_file() else ()
                total += 1
                empty += not regions
                mask = RegionMask(file, image.name, regions, by_area=True)
                splits.setdefault(split, []).append(Sample(sample_name(root, image), image, mask))
        problems += _labels_without_image(image_set)
        if not image_set.images:
            problems.append(f"{image_set.origin}: contains no images: put images there")
    raise_problems(problems)
    background = classes.names[0]
    notes = [
        f"YOLO: {len(classes)} classes from {path}; pixels without an object are {background}; "
        "smaller objects are on top of larger ones"
    ]
    if empty:
        notes.append(f"images without objects (all {background}): {empty} of {total}")
    return Source(root, "yolo", splits, classes, False, notes)


def _labels_without_image(image_set: _ImageSet) -> list[str]:
    if image_set.labels is None:
        return []
    stems = {image.stem for image in image_set.images}
    return [
        f"{image_set.labels / name}: has no image: add {image_set.origin / Path(name).stem}.jpg or "
        ".png, or remove the file"
        for name in sorted(first_names(image_set.labels, _TEXT, limit=None))
        if Path(name).stem not in stems and name != "classes.txt"
    ]


def _regions(path: Path, values: list[int]) -> tuple[Polygons, ...]:
    """Read a label file."""
    regions: list[Polygons] = []
    problems: list[str] = []
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            with collect_errors(problems), error_context(f"{path}: line {number}"):
                regions.append(_polygon(line.split(), values))
    raise_problems(problems)
    return tuple(regions)


def _polygon(cells: list[str], values: list[int]) -> Polygons:
    try:
        index, corners = int(float(cells[0])), [float(cell) for cell in cells[1:]]
    except (ValueError, OverflowError) as error:
        raise InputError("contains a value that is not a number: correct it") from error
    if len(corners) == 4:
        raise InputError("is a box, not a polygon: export polygons (segmentation)")
    if not 0 <= index < len(values):
        raise InputError(
            f"class {index} is not in data.yaml (0 to {len(values) - 1}): correct the class or add "
            "its name"
        )
    ring = as_ring(corners)
    low, high = ring.min(), ring.max()
    if low < -_MARGIN or high > 1 + _MARGIN:
        raise InputError(
            f"a corner is at {low if low < 0 else high:g}: write fractions of the width and height "
            "from 0 to 1"
        )
    return Polygons(values[index], (ring,), relative=True)
