"""YOLO polygons: data.yaml, images/SPLIT/NAME.jpg, labels/SPLIT/NAME.txt (`class x1 y1 ...`).

Where the images lie is what data.yaml says, read as Ultralytics reads it
(https://docs.ultralytics.com/datasets/segment): `train`, `val` and `test` are a folder, a list file
with an image a line, or a list of either, relative to `path`. Paths that are not on this machine
give way to the folders that are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.data import json_yaml
from pixelwise.data.class_tables import read_lines
from pixelwise.data.image_files import list_images
from pixelwise.data.layouts.folder_names import (
    ALIASES,
    data_yaml,
    first_names,
    folders_in,
    split_folders,
)
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.layouts.shape_classes import classes_above_background
from pixelwise.data.polygons import Drawn, Polygons, as_ring
from pixelwise.data.source import SPLITS, Sample, Source
from pixelwise.errors import InputError, refuse

DESCRIPTION = "YOLO polygons: data.yaml with names, images/SPLIT/, labels/SPLIT/NAME.txt"

_TEXT = frozenset({".txt"})
_MARGIN = 0.01
"""How far over the image's edge a corner may lie, of its width, before it is taken for pixels."""


@dataclass
class _Part:
    """Images of one split. labels: the folder of their files, None where it holds others too."""

    images: list[Path]
    labels: Path | None
    origin: Path


def detect(root: Path) -> bool:
    path = data_yaml(root)
    if path is None:
        return False
    if any(first_names(labels, _TEXT) for _, labels in folders(root).values()):
        return True
    try:
        places = _stated(root, path)
    except InputError:  # said when it is read
        return False
    return any(_leads_to_labels(place) for found in places.values() for place in found)


def _leads_to_labels(place: Path) -> bool:
    if place.is_dir():
        below = [place, *list(folders_in(place).values())[:8]]
        return any(first_names(label_file(folder / "_").parent, _TEXT) for folder in below)
    with place.open(encoding="utf-8-sig", errors="replace") as stream:
        lines = [stream.readline().strip() for _ in range(8)]
    return any(line and label_file(_listed(place, line)).is_file() for line in lines)


def label_file(image: Path) -> Path:
    """Where Ultralytics has the outlines of an image: the last `images` of its path is `labels`."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _stated(root: Path, path: Path) -> dict[str, list[Path]]:
    """Split to the folders and list files that data.yaml names; empty where none of them is here.

    Raises InputError where some are and others are not; a test split may be absent.
    """
    content = json_yaml.read_yaml(path)
    above = content.get("path")
    bases = [root / above, root] if isinstance(above, str) else [root]
    found: dict[str, list[Path]] = {}
    missing = []
    for split, aliases in ALIASES.items():
        value = next((content[alias] for alias in aliases if content.get(alias)), None)
        for entry in value if isinstance(value, list) else [value] if value else []:
            if not isinstance(entry, str):
                raise InputError(f"{path}: {split}: {entry!r} is no path: write a folder or a file")
            place = _resolve(bases, entry)
            if place is not None:
                found.setdefault(split, []).append(place)
            elif split != "test":
                missing.append(
                    f"{path}: {split}: {entry} is not there, relative to {bases[0]}: correct it"
                )
    if found:
        refuse(missing)
    return found


def _resolve(bases: list[Path], entry: str) -> Path | None:
    """Roboflow writes `../train/images` for what lies beside data.yaml; Ultralytics allows it."""
    for base in bases:
        for candidate in (base / entry, base / entry.removeprefix("../")):
            if candidate.exists():
                return candidate
    return None


def _listed(file: Path, line: str) -> Path:
    """The image that a line of a list file names, relative to that file."""
    return file.parent / line.removeprefix("./")


def _parts(root: Path, path: Path) -> dict[str, list[_Part]]:
    stated = _stated(root, path)
    if not stated:
        return {
            split: [_Part(list_images(images), labels, images)]
            for split, (images, labels) in folders(root).items()
        }
    return {
        split: [p for place in places for p in _images_of(place)]
        for split, places in stated.items()
    }


def _images_of(place: Path) -> list[_Part]:
    if place.is_dir():
        parts = []
        for folder in (place, *sorted(f for f in place.rglob("*") if f.is_dir())):
            images = list_images(folder)
            if images or folder == place:
                parts.append(_Part(images, label_file(folder / "_").parent, folder))
        return [part for part in parts if part.images] or parts
    images, problems = [], []
    for number, line in enumerate(read_lines(place), start=1):
        if line.strip():
            image = _listed(place, line.strip())
            images.append(image)
            if not image.is_file():
                problems.append(f"{place}: line {number}: {image} is not there: correct the line")
    refuse(problems)
    return [_Part([image for image in images if image.is_file()], None, place)]


def folders(root: Path, part: str = "labels") -> dict[str, tuple[Path, Path]]:
    """Split (or `all`) to its folders of images and of `part`, splits below or above these."""
    images, others = root / "images", root / part
    if images.is_dir() and others.is_dir():
        below = split_folders(images)
        if below:
            return {s: (f, others / f.name) for s, f in below.items()}
        return {"all": (images, others)}
    return {
        split: (folder / "images", folder / part)
        for split, folder in split_folders(root).items()
        if part in folders_in(folder)
    }


def class_names(path: Path) -> list[str]:
    """`names` of a data.yaml: a list, or a mapping from 0, 1, ... in which none is left out."""
    names: Any = json_yaml.read_yaml(path).get("names")
    if isinstance(names, dict):
        keys = [str(key) for key in names if isinstance(key, str | int)]
        if sorted(keys) != sorted(map(str, range(len(names)))):
            raise InputError(f"{path}: names: number them 0, 1, 2 and so on, none left out")
        names = [name for _, name in sorted((int(key), name) for key, name in names.items())]
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: has no names: write `names: [first, second]`")
    if not all(isinstance(name, str | int | float) for name in names):
        raise InputError(f"{path}: names: {json_yaml.brief(names)}: each is a text")
    return [str(name) for name in names]


def read(root: Path) -> Source:
    path = data_yaml(root)
    assert path is not None  # as detect has found
    names = class_names(path)
    classes, value_of = classes_above_background(path, names)
    values = [value_of[name] for name in names]
    problems: list[str] = []
    splits: dict[str, list[Sample]] = {}
    empty = total = 0
    parts = _parts(root, path)
    for split, part in ((s, part) for s in (*SPLITS, "all") for part in parts.get(s, ())):
        for image in part.images:
            file = label_file(image) if part.labels is None else part.labels / f"{image.stem}.txt"
            try:
                regions = _regions(file, values) if file.is_file() else ()
            except InputError as error:
                problems += error.problems
                continue
            total += 1
            empty += not regions
            mask = Drawn(file, image.name, regions, by_area=True)
            splits.setdefault(split, []).append(Sample(sample_name(root, image), image, mask))
        problems += _orphans(part)
        if not part.images:
            problems.append(f"{part.origin}: no images in it: put them there")
    refuse(problems)
    notes = [
        f"YOLO: {len(classes)} classes from {path}, {classes.names[0]} where nothing is drawn; "
        "smaller objects lie on larger ones"
    ]
    if empty:
        notes.append(f"{empty} of {total} images have no objects: all {classes.names[0]}")
    return Source(root, "yolo", splits, classes, False, notes)


def _orphans(part: _Part) -> list[str]:
    if part.labels is None:
        return []
    stems = {image.stem for image in part.images}
    return [
        f"{part.labels / name}: has no image: expected {part.origin / Path(name).stem}.jpg or "
        ".png, or remove the file"
        for name in sorted(first_names(part.labels, _TEXT, most=None))
        if Path(name).stem not in stems and name != "classes.txt"
    ]


def _regions(path: Path, values: list[int]) -> tuple[Polygons, ...]:
    regions, problems = [], []
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.split()
        if not cells:
            continue
        where = f"{path}: line {number}"
        try:
            index, corners = int(float(cells[0])), [float(cell) for cell in cells[1:]]
        except (ValueError, OverflowError):
            problems.append(f"{where}: holds something that is not a number: correct it")
            continue
        if len(corners) == 4:
            problems.append(f"{where}: is a box, not an outline: export polygons (segmentation)")
        elif not 0 <= index < len(values):
            problems.append(
                f"{where}: class {index} is not in data.yaml, which names 0 to {len(values) - 1}"
            )
        else:
            try:
                ring = as_ring(corners)
            except InputError as error:
                problems.append(f"{where}: {error}")
                continue
            if ring.min() < -_MARGIN or ring.max() > 1 + _MARGIN:
                problems.append(
                    f"{where}: a corner is at {ring.min() if ring.min() < 0 else ring.max():g}: "
                    "write shares of the width and height, 0 to 1"
                )
            regions.append(Polygons(values[index], (ring,), relative=True))
    refuse(problems)
    return tuple(regions)
