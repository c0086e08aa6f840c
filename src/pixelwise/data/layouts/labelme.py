"""labelme: one JSON file per image, beside it or in a separate folder."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data import json_yaml
from pixelwise.data.class_tables import read_lines
from pixelwise.data.classes import listed, normalize_name
from pixelwise.data.file_resolver import Claims, FileResolver
from pixelwise.data.folder_listing import walk_files, walk_folders
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.error_handling import collect_errors, error_context
from pixelwise.data.layouts.folder_names import first_names, folders_in, split_folders
from pixelwise.data.layouts.folder_pairs import folder_pairs, has_masks
from pixelwise.data.layouts.layout_classes import classes_above_background
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.polygons import Disc, Polygons, Region, RegionMask, as_ring
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError, raise_problems
from pixelwise.file_io import atomic, cache_folder, make_folder

DESCRIPTION = "labelme: NAME.json with the shapes of NAME.jpg, beside it or in annotations/"

_JSON_FOLDERS = ("annotations", "labels", "label", "json", "jsons", "annotation")
_KEYS = {"shapes", "imageData", "imagePath"}
_POINTS = {
    "rectangle": (2, 4),
    "circle": (2,),
    "mask": (2,),
    "rotation": (4,),
    "oriented_rectangle": (4,),
}
"""The number of points of each type of shape. Four points are the corners, already rotated."""
_FILE_STARTS: dict[str, bytes | tuple[bytes, ...]] = {
    ".jpg": b"\xff\xd8\xff",
    ".png": b"\x89PNG",
    ".bmp": b"BM",
    ".webp": b"RIFF",
    ".tif": (b"II", b"MM"),
}
"""How the content of an image file begins, by suffix."""


@dataclass
class _Annotation:
    """A JSON file with its image, its shapes by label, and the (height, width) it gives."""

    path: Path
    image: Path
    shapes: list[tuple[str, dict[str, Any]]]
    size: tuple[int, int] | None


def detect(root: Path) -> bool:
    return bool(_json_folders(root))


def _has_labelme_files(folder: Path) -> bool:
    names = first_names(folder, frozenset({".json"}))
    return bool(names) and bool(json_yaml.top_keys(folder / min(names)) & _KEYS)


def _has_nested_labelme_files(folder: Path) -> bool:
    return any(_has_labelme_files(each) for each in walk_folders(folder))


def _json_folders(root: Path) -> dict[str, Path]:
    """The folder with the JSON files of each split; `all` if the folder is not split.

    The files may be in folders below it, unless the dataset has masks.
    """
    present = folders_in(root)
    candidates = [root, *(present[name] for name in (*_JSON_FOLDERS, "images") if name in present)]
    found = next((folder for folder in candidates if _has_labelme_files(folder)), None)
    if found is not None:
        return {"all": found}
    nested = not any(has_masks(masks) for _, masks in folder_pairs(root).values())
    for has_files in (_has_labelme_files, *([_has_nested_labelme_files] if nested else [])):
        for folder in candidates:
            splits = {s: f for s, f in split_folders(folder).items() if has_files(f)}
            if splits:
                return splits
    return {"all": root} if nested and _has_nested_labelme_files(root) else {}


def read(root: Path) -> Source:
    annotations, unannotated = _read_files(root)
    shapes_of = [annotation.shapes for group in annotations.values() for annotation in group]
    used = {label for shapes in shapes_of for label, _ in shapes}
    names, path = sorted(used), root
    labels = root / "labels.txt"
    if labels.is_file():
        names = [normalize_name(line) for line in read_lines(labels) if line.strip()]
        path = labels
        unknown = sorted(used - set(names))
        if unknown:
            raise InputError(
                f"{labels}: does not list {listed(unknown)}, used by shapes: add lines"
            )
    classes, value_of = classes_above_background(path, names)
    splits: dict[str, list[Sample]] = {}
    problems: list[str] = []
    for split, group in annotations.items():
        for annotation in group:
            with collect_errors(problems):
                splits.setdefault(split, []).append(_sample(root, annotation, value_of))
    raise_problems(problems)
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
    images = FileResolver(root, walk_files(root, IMAGE_SUFFIXES))
    for split, folder in _json_folders(root).items():
        annotations[split] = []
        claims = Claims()
        for path in _json_files(folder):
            with collect_errors(problems):
                annotation = _read_file(images, split, path)
                claims.add(annotation.image, str(path))
                annotations[split].append(annotation)
        folders = {annotation.image.parent for annotation in annotations[split]}
        unannotated += sum(file.parent in folders and file not in claims for file in images.files)
    raise_problems(problems)
    return annotations, unannotated


def _json_files(folder: Path) -> list[Path]:
    """The JSON files directly in a folder, and those of labelme below it."""
    return [
        path
        for path in walk_files(folder, {".json"})
        if path.parent == folder or json_yaml.top_keys(path) & _KEYS
    ]


def _read_file(images: FileResolver, split: str, path: Path) -> _Annotation:
    content = json_yaml.read_json(path)
    image = _find_image(images, split, path, content)
    shapes = []
    for number, shape in enumerate(json_yaml.field(path, content, "shapes", list, "the file")):
        label = normalize_name(json_yaml.field(path, shape, "label", str, f"shape {number}"))
        if not label:
            raise InputError(
                f"{path}: shape {number} has an empty label: give it the name of a class"
            )
        shapes.append((label, shape))
    size = json_yaml.image_size(content, "imageHeight", "imageWidth")
    return _Annotation(path, image, shapes, size)


def _find_image(images: FileResolver, split: str, path: Path, content: Any) -> Path:
    """The image of a JSON file: its `imagePath`, the image inside the file, or one of its name."""
    image_path, embedded = (
        (content.get("imagePath"), content.get("imageData"))
        if isinstance(content, dict)
        else (None, None)
    )
    root = images.root
    near = [path.parent], [root / "images" / split], [root / "images", root / "JPEGImages"], [root]
    found = images.candidates(image_path, *near) if isinstance(image_path, str) else []
    if len(found) == 1:
        images.check_namesake(path, found[0])
        return found[0]
    if isinstance(embedded, str) and embedded:
        with error_context(path):
            return _extract(embedded, path.stem)
    reference = str(image_path) if found else path.stem
    found = found or images.candidates(reference, *near)
    if len(found) > 1:
        raise InputError(f"{path}: {images.ambiguous(reference, found)}")
    if not found:
        raise InputError(
            f"{path}: image {image_path!r} does not exist: put it beside the JSON file"
        )
    return found[0]


def _extract(embedded: str, stem: str) -> Path:
    """Write the image inside a JSON file (base64) to the cache, and return the file."""
    content = _decode_base64(embedded, "imageData")
    suffix = next((s for s, start in _FILE_STARTS.items() if content.startswith(start)), None)
    if suffix is None:
        raise InputError("its imageData is not an image: put the image beside the JSON file")
    cache = cache_folder()
    if cache is None:
        raise InputError(
            "its image is only in imageData, and there is no home folder to extract it to: set "
            "PIXELWISE_CACHE to a folder"
        )
    folder = cache / "labelme" / hashlib.sha256(content).hexdigest()[:32]
    file = folder / f"{stem}{suffix}"
    if not file.is_file():
        make_folder(folder)
        with atomic(file) as temporary:
            temporary.write_bytes(content)
    return file


def _decode_base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputError(f"its {what} is not base64 ({error}): export the file again") from error


def _sample(root: Path, annotation: _Annotation, value_of: dict[str, int]) -> Sample:
    regions: list[Region] = []
    problems: list[str] = []
    for number, (label, shape) in enumerate(annotation.shapes):
        where = f"{annotation.path}: shape {number} ({label})"
        with collect_errors(problems), error_context(where):
            regions.append(_region(shape, value_of[label]))
    if problems:
        raise InputError(*problems)
    image = annotation.image
    mask = RegionMask(annotation.path, image.name, tuple(regions), size=annotation.size)
    named = image if image.is_relative_to(root) else annotation.path
    return Sample(sample_name(root, named), image, mask)


@dataclass(frozen=True)
class MaskCrop:
    """A mask shape: a PNG file (base64) that covers a box of the image.

    Attributes:
        value: Value in the mask.
        corner: x, y of the upper left pixel of the box.
        sides: Width and height of the box in pixels.
        png: The PNG file; pixels above 0 belong to the shape.
    """

    value: int
    corner: tuple[int, int]
    sides: tuple[int, int]
    png: bytes

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        (left, top), (width, height) = self.corner, self.sides
        if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
            raise InputError(
                f"a mask shape covers columns {left} to {left + width - 1} and rows {top} to "
                f"{top + height - 1}, but the image is {size[1]}x{size[0]}: annotate it again"
            )
        try:
            with Image.open(io.BytesIO(self.png), formats=("PNG",)) as image:
                stored_size = image.size
                inside = np.asarray(image.convert("L")) > 0 if stored_size == self.sides else None
        except Exception as error:  # damaged bytes can raise anything in a decoder
            raise InputError(f"a mask shape is damaged ({error}): annotate it again") from error
        if inside is None:
            raise InputError(
                f"a mask shape is {stored_size[0]}x{stored_size[1]}, but its points give "
                f"{width}x{height}: annotate it again"
            )
        covered = np.zeros(size, dtype=bool)
        covered[top : top + height, left : left + width] = inside
        return covered


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
    allowed = _POINTS.get(kind)
    if allowed is not None and len(points) not in allowed:
        numbers = " or ".join(map(str, allowed))
        raise InputError(
            f"a {kind} has {len(points)} points, but needs {numbers}: annotate it again"
        )
    if kind == "polygon" or (len(points) == 4 and allowed is not None):
        return Polygons(value, (as_ring([x for point in points for x in point]),))
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points
        return Polygons(value, (as_ring([x0, y0, x1, y0, x1, y1, x0, y1]),))
    if kind == "circle":
        center, edge = points
        return Disc(value, (center[0], center[1]), float(np.hypot(*np.subtract(center, edge))))
    if kind == "mask":
        png = shape.get("mask")
        if not isinstance(png, str):
            raise InputError(f"its mask is {json_yaml.brief(png)}: annotate it again")
        if not np.isfinite(points).all():
            raise InputError("its points are not finite: annotate it again")
        (x0, y0), (x1, y1) = ([int(x) for x in point] for point in points)
        return MaskCrop(value, (x0, y0), (x1 - x0 + 1, y1 - y0 + 1), _decode_base64(png, "mask"))
    raise InputError(
        f"shape_type {kind!r} is not supported (allowed: polygon, {', '.join(_POINTS)}): "
        "annotate it as a polygon, or remove it"
    )
