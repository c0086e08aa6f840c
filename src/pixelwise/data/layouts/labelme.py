"""labelme: a JSON file an image, beside it or in a folder of its own."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from pixelwise.data import json_yaml
from pixelwise.data.class_tables import read_lines
from pixelwise.data.classes import listed
from pixelwise.data.image_files import IMAGE_SUFFIXES, list_images
from pixelwise.data.layouts.folder_names import first_names, folders_in, split_folders
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.layouts.shape_classes import classes_above_background
from pixelwise.data.polygons import Disc, Drawn, Polygons, Region, as_ring
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError, refuse
from pixelwise.file_io import is_file

DESCRIPTION = "labelme: NAME.json with the shapes of NAME.jpg, beside it or in annotations/"

_FOLDERS = ("annotations", "labels", "label", "json", "jsons", "annotation")
_OWN_KEYS = {"shapes", "imageData", "imagePath"}

_Shapes = list[tuple[str, dict[str, Any]]]
_Found = tuple[Path, Path, _Shapes, tuple[int, int] | None]


def detect(root: Path) -> bool:
    return any(_of_labelme(folder) for folder in _places(root).values())


def _of_labelme(folder: Path) -> bool:
    names = first_names(folder, frozenset({".json"}))
    return bool(names) and bool(json_yaml.top_keys(folder / min(names)) & _OWN_KEYS)


def _places(root: Path) -> dict[str, Path]:
    """Split (or `all`) to the folder of its JSON files."""
    present = folders_in(root)
    inner = [present[name] for name in (*_FOLDERS, "images") if name in present]
    for place in (root, *inner):
        if _of_labelme(place):
            return {"all": place}
    for place in (root, *inner):
        splits = {s: f for s, f in split_folders(place).items() if _of_labelme(f)}
        if splits:
            return splits
    return {}


def read(root: Path) -> Source:
    problems: list[str] = []
    found: dict[str, list[_Found]] = {}
    unmarked = 0
    for split, folder in _places(root).items():
        found[split] = []
        images: set[Path] = set()
        for path in sorted(folder.glob("*.json")):
            try:
                content = json_yaml.read_json(path)
                image = _image(root, split, path, content)
                found[split].append((path, image, _shapes(path, content), _stated(content)))
                images.add(image)
            except InputError as error:
                problems += error.problems
        for place in {image.parent for image in images}:
            unmarked += sum(image not in images for image in list_images(place))
    refuse(problems)
    labels = root / "labels.txt"
    used = {label for group in found.values() for _, _, shapes, _ in group for label, _ in shapes}
    names = sorted(used)
    if labels.is_file():
        names = [line.strip() for line in read_lines(labels) if line.strip()]
        unknown = sorted(used - set(names))
        if unknown:
            raise InputError(f"{labels}: has no {listed(unknown)}, which shapes have: add a line")
    classes, value_of = classes_above_background(labels if labels.is_file() else root, names)
    splits = {
        split: [_sample(root, *parts, value_of) for parts in group]
        for split, group in found.items()
    }
    where = f"from {labels}" if labels.is_file() else "from the labels of the shapes"
    notes = [f"labelme: {len(classes)} classes {where}; later shapes lie on earlier ones"]
    empty = sum(not shapes for group in found.values() for _, _, shapes, _ in group)
    if empty:
        notes.append(f"{empty} files have no shapes: all background")
    if unmarked:
        notes.append(f"left out: {unmarked} images without a JSON file, not annotated yet")
    return Source(root, "labelme", splits, classes, False, notes)


def _image(root: Path, split: str, path: Path, content: Any) -> Path:
    """The image that a file belongs to: as it says, else the one of its own name."""
    stated = content.get("imagePath") if isinstance(content, dict) else None
    names = [PureWindowsPath(stated).as_posix()] if isinstance(stated, str) and stated else []
    names += [path.stem + suffix for suffix in sorted(IMAGE_SUFFIXES)]
    places = (path.parent, root / "images" / split, root / "images", root / "JPEGImages", root)
    for name in names:
        for place in places:
            for file in (place / name, place / Path(name).name):
                if is_file(file):
                    return file
    raise InputError(f"{path}: its image {stated!r} is not there: put it beside the JSON file")


def _stated(content: Any) -> tuple[int, int] | None:
    """(height, width) of the image as the file gives it."""
    height, width = content.get("imageHeight"), content.get("imageWidth")
    return (height, width) if type(height) is int and type(width) is int else None


def _shapes(path: Path, content: Any) -> _Shapes:
    shapes = json_yaml.field(path, content, "shapes", list, "the file")
    return [
        (json_yaml.field(path, shape, "label", str, f"shape {number}"), shape)
        for number, shape in enumerate(shapes)
    ]


def _sample(
    root: Path,
    path: Path,
    image: Path,
    shapes: _Shapes,
    stated: tuple[int, int] | None,
    value_of: dict[str, int],
) -> Sample:
    regions = []
    for number, (label, shape) in enumerate(shapes):
        try:
            regions.append(_region(shape, value_of[label]))
        except InputError as error:
            raise InputError(f"{path}: shape {number} ({label}): {error}") from error
    mask = Drawn(path, image.name, tuple(regions), stated=stated)
    return Sample(sample_name(root, image), image, mask)


def _region(shape: dict[str, Any], value: int) -> Region:
    kind = shape.get("shape_type") or "polygon"  # files of the first versions have none
    points = shape.get("points")
    if not isinstance(points, list) or not all(
        isinstance(p, list) and len(p) == 2 and all(type(x) in (int, float) for x in p)
        for p in points
    ):
        raise InputError("its points are not pairs of numbers: export the file again")
    if not isinstance(kind, str):
        raise InputError(f"shape_type = {kind!r}: export the file again")
    if kind == "polygon":
        return Polygons(value, (as_ring([x for point in points for x in point]),))
    if kind in {"rectangle", "circle"} and len(points) != 2:
        raise InputError(f"a {kind} has {len(points)} points, two are needed: draw it again")
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points
        return Polygons(value, (as_ring([x0, y0, x1, y0, x1, y1, x0, y1]),))
    if kind == "circle":
        center, edge = points
        return Disc(value, (center[0], center[1]), float(np.hypot(*np.subtract(center, edge))))
    raise InputError(
        f"shape_type {kind!r} has no area that is read: polygon, rectangle and circle are; draw it "
        "as a polygon or remove it"
    )
