"""YOLO polygons: data.yaml, images/SPLIT/NAME.jpg, labels/SPLIT/NAME.txt (`class x1 y1 ...`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixelwise.data import documents
from pixelwise.data.images import list_images
from pixelwise.data.layouts.drawing import classes_above_background
from pixelwise.data.layouts.names import data_yaml, first_names, folders_in, split_folders
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.outlines import Drawn, Polygons, as_ring
from pixelwise.data.source import SPLITS, Sample, Source
from pixelwise.data.tables import read_lines
from pixelwise.errors import InputError, refuse

DESCRIPTION = "YOLO polygons: data.yaml with names, images/SPLIT/, labels/SPLIT/NAME.txt"

_TEXT = frozenset({".txt"})
_MARGIN = 0.01
"""How far over the image's edge a corner may lie, of its width, before it is taken for pixels."""


def detect(root: Path) -> bool:
    return data_yaml(root) is not None and any(
        first_names(labels, _TEXT) for _, labels in folders(root).values()
    )


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
    names: Any = documents.read_yaml(path).get("names")
    if isinstance(names, dict):
        keys = [str(key) for key in names if isinstance(key, str | int)]
        if sorted(keys) != sorted(map(str, range(len(names)))):
            raise InputError(f"{path}: names: number them 0, 1, 2 and so on, none left out")
        names = [name for _, name in sorted((int(key), name) for key, name in names.items())]
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: has no names: write `names: [first, second]`")
    if not all(isinstance(name, str | int | float) for name in names):
        raise InputError(f"{path}: names: {documents.brief(names)}: each is a text")
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
    parts = folders(root)
    for split in (*SPLITS, "all"):
        if split not in parts:
            continue
        images, labels = parts[split]
        stems = set()
        for image in list_images(images):
            stems.add(image.stem)
            file = labels / f"{image.stem}.txt"
            try:
                regions = _regions(file, values) if file.is_file() else ()
            except InputError as error:
                problems += error.problems
                continue
            total += 1
            empty += not regions
            mask = Drawn(file, image.name, regions, by_area=True)
            splits.setdefault(split, []).append(Sample(sample_name(root, image), image, mask))
        problems += [
            f"{labels / name}: has no image: expected {images / Path(name).stem}.jpg or .png, or "
            "remove the file"
            for name in sorted(first_names(labels, _TEXT, most=None))
            if Path(name).stem not in stems and name != "classes.txt"
        ]
        if not stems:
            problems.append(f"{images}: no images in it: put them there")
    refuse(problems)
    notes = [
        f"YOLO: {len(classes)} classes from {path}, {classes.names[0]} where nothing is drawn; "
        "smaller objects lie on larger ones"
    ]
    if empty:
        notes.append(f"{empty} of {total} images have no objects: all {classes.names[0]}")
    return Source(root, "yolo", splits, classes, False, notes)


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
