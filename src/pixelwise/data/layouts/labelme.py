"""labelme: one JSON file per image, beside it or in a separate folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from pixelwise.data import json_yaml
from pixelwise.data.class_tables import read_lines
from pixelwise.data.classes import listed
from pixelwise.data.image_files import IMAGE_SUFFIXES, list_images
from pixelwise.data.layouts.error_handling import collect_errors, error_context
from pixelwise.data.layouts.folder_names import first_names, folders_in, split_folders
from pixelwise.data.layouts.layout_classes import classes_above_background
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.polygons import Disc, Polygons, Region, RegionMask, as_ring
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError, raise_problems
from pixelwise.file_io import is_file

DESCRIPTION = "labelme: NAME.json with the shapes of NAME.jpg, beside it or in annotations/"

_JSON_FOLDERS = ("annotations", "labels", "label", "json", "jsons", "annotation")
_KEYS = {"shapes", "imageData", "imagePath"}


@dataclass
class _Annotation:
    """A JSON file with its image, its shapes by label, and the (height, width) it gives."""

    path: Path
    image: Path
    shapes: list[tuple[str, dict[str, Any]]]
    size: tuple[int, int] | None


def detect(root: Path) -> bool:
    return any(_has_labelme_files(folder) for folder in _json_folders(root).values())


def _has_labelme_files(folder: Path) -> bool:
    names = first_names(folder, frozenset({".json"}))
    return bool(names) and bool(json_yaml.top_keys(folder / min(names)) & _KEYS)


def _json_folders(root: Path) -> dict[str, Path]:
    """The folder with the JSON files of each split; `all` if the folder is not split."""
    present = folders_in(root)
    candidates = [root, *(present[name] for name in (*_JSON_FOLDERS, "images") if name in present)]
    for folder in candidates:
        if _has_labelme_files(folder):
            return {"all": folder}
    for folder in candidates:
        splits = {s: f for s, f in split_folders(folder).items() if _has_labelme_files(f)}
        if splits:
            return splits
    return {}


def read(root: Path) -> Source:
    annotations, unannotated = _read_files(root)
    shapes_of = [annotation.shapes for group in annotations.values() for annotation in group]
    used = {label for shapes in shapes_of for label, _ in shapes}
    names, path = sorted(used), root
    labels = root / "labels.txt"
    if labels.is_file():
        names = [line.strip() for line in read_lines(labels) if line.strip()]
        path = labels
        unknown = sorted(used - set(names))
        if unknown:
            raise InputError(
                f"{labels}: does not list {listed(unknown)}, used by shapes: add lines"
            )
    classes, value_of = classes_above_background(path, names)
    splits = {
        split: [_sample(root, annotation, value_of) for annotation in group]
        for split, group in annotations.items()
    }
    origin = labels if path == labels else "the labels of the shapes"
    notes = [
        f"labelme: {len(classes)} classes from {origin}; later shapes are on top of earlier ones"
    ]
    empty = shapes_of.count([])
    if empty:
        notes.append(f"files without shapes (all background): {empty}")
    if unannotated:
        notes.append(f"images skipped because they have no JSON file: {unannotated}")
    return Source(root, "labelme", splits, classes, False, notes)


def _read_files(root: Path) -> tuple[dict[str, list[_Annotation]], int]:
    """The annotations of each split, and the number of images without any."""
    problems: list[str] = []
    annotations: dict[str, list[_Annotation]] = {}
    unannotated = 0
    for split, folder in _json_folders(root).items():
        annotations[split] = []
        images: set[Path] = set()
        for path in sorted(folder.glob("*.json")):
            with collect_errors(problems):
                annotation = _read_file(root, split, path)
                annotations[split].append(annotation)
                images.add(annotation.image)
        for image_folder in {image.parent for image in images}:
            unannotated += sum(image not in images for image in list_images(image_folder))
    raise_problems(problems)
    return annotations, unannotated


def _read_file(root: Path, split: str, path: Path) -> _Annotation:
    content = json_yaml.read_json(path)
    image = _find_image(root, split, path, content)
    shapes = [
        (json_yaml.field(path, shape, "label", str, f"shape {number}"), shape)
        for number, shape in enumerate(json_yaml.field(path, content, "shapes", list, "the file"))
    ]
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (height, width) if type(height) is int and type(width) is int else None
    return _Annotation(path, image, shapes, size)


def _find_image(root: Path, split: str, path: Path, content: Any) -> Path:
    """The image of a JSON file: its `imagePath`, else the one with the same name."""
    image_path = content.get("imagePath") if isinstance(content, dict) else None
    names = [path.stem + suffix for suffix in sorted(IMAGE_SUFFIXES)]
    if isinstance(image_path, str) and image_path:
        names.insert(0, PureWindowsPath(image_path).as_posix())
    folders = (path.parent, root / "images" / split, root / "images", root / "JPEGImages", root)
    for name in names:
        for folder in folders:
            for file in (folder / name, folder / Path(name).name):
                if is_file(file):
                    return file
    raise InputError(f"{path}: image {image_path!r} does not exist: put it beside the JSON file")


def _sample(root: Path, annotation: _Annotation, value_of: dict[str, int]) -> Sample:
    regions = []
    for number, (label, shape) in enumerate(annotation.shapes):
        with error_context(f"{annotation.path}: shape {number} ({label})"):
            regions.append(_region(shape, value_of[label]))
    image = annotation.image
    mask = RegionMask(annotation.path, image.name, tuple(regions), size=annotation.size)
    return Sample(sample_name(root, image), image, mask)


def _region(shape: dict[str, Any], value: int) -> Region:
    kind = shape.get("shape_type") or "polygon"  # the first versions of labelme omit it
    points = shape.get("points")
    if not isinstance(points, list) or not all(
        isinstance(p, list) and len(p) == 2 and all(type(x) in (int, float) for x in p)
        for p in points
    ):
        raise InputError("its points are not pairs of numbers: export the file again")
    if not isinstance(kind, str):
        raise InputError(f"shape_type is {kind!r}: export the file again")
    if kind == "polygon":
        return Polygons(value, (as_ring([x for point in points for x in point]),))
    if kind in {"rectangle", "circle"} and len(points) != 2:
        raise InputError(f"a {kind} has {len(points)} points, but needs two: annotate it again")
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points
        return Polygons(value, (as_ring([x0, y0, x1, y0, x1, y1, x0, y1]),))
    if kind == "circle":
        center, edge = points
        return Disc(value, (center[0], center[1]), float(np.hypot(*np.subtract(center, edge))))
    raise InputError(
        f"shape_type {kind!r} is not supported (allowed: polygon, rectangle, circle): annotate it "
        "as a polygon, or remove it"
    )
