"""Label Studio: a JSON export with polygons, ellipses, rectangles, and brush masks (RLE or PNG)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from pixelwise.data import json_yaml
from pixelwise.data.image_files import list_images
from pixelwise.data.layouts.error_handling import collect_errors, error_context
from pixelwise.data.layouts.folder_names import first_names, folders_in
from pixelwise.data.layouts.layout_classes import classes_above_background
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.mask_files import read_stored_mask
from pixelwise.data.polygons import Ellipse, Polygons, Rectangle, Region, RegionMask, as_ring
from pixelwise.data.rle import BrushRLE, whole_numbers
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError, raise_problems

DESCRIPTION = "Label Studio: a JSON export and images/ (optionally task-...-tag-LABEL-0.png files)"

_KEYS = {"annotations", "completions", "predictions", "data", "file_upload", "image", "annotator"}
_PNG = re.compile(r"task-(\d+)-annotation-(\d+)-by-(.+)-\d+\.png")
_SHAPES = ("ellipselabels", "rectanglelabels")
_AREAS = ("brushlabels", "polygonlabels", *_SHAPES)
_IMAGE_LEVEL = {"choices", "textarea", "rating", "number", "relation"}
"""Types of results that describe the whole image and have no area."""
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "upload", "media")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")

_BrushMasks = dict[int, list[tuple[str, Path]]]
"""(label, PNG file) of each brush mask, by task."""


@dataclass(frozen=True)
class BrushMask:
    """A PNG file with the brush mask of one label: 0 outside, more inside."""

    value: int
    path: Path

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        file = read_stored_mask(self.path)
        stored = file.values if file.top == 255 else file.gray_tones(file.values)
        if stored.shape != size:
            raise InputError(
                f"{self.path.name} is {'x'.join(map(str, stored.shape[1::-1]))} but the image is "
                f"{size[1]}x{size[0]}: export the PNG files again"
            )
        return np.asarray(stored > 127 if stored.max(initial=0) > 1 else stored > 0)


def detect(root: Path) -> bool:
    return _export_file(root) is not None or _brush_folder(root) is not None


def _export_file(root: Path) -> Path | None:
    for path in sorted(root.glob("*.json"))[:20]:
        keys = json_yaml.top_keys(path)
        if "[]" in keys and keys & _KEYS:
            return path
    return None


def _brush_folder(root: Path) -> Path | None:
    for folder in (root, *folders_in(root).values()):
        if any(_PNG.fullmatch(name) for name in first_names(folder, frozenset({".png"}))):
            return folder
    return None


@dataclass
class _Tasks:
    """The annotated tasks of an export, and counts for the notes.

    Attributes:
        annotated: Image, labeled results (JSON or PNG files) and id of each task.
        pending: Number of tasks without an annotation.
        multiple: Number of tasks with several annotations.
    """

    annotated: list[tuple[Path, list[tuple[str, Any]], int]] = field(default_factory=list)
    pending: int = 0
    multiple: int = 0


def read(root: Path) -> Source:
    path, brush_folder = _export_file(root), _brush_folder(root)
    if path is None:
        raise InputError(
            f"{brush_folder}: the names of brush PNG files contain the task but not the image: "
            f"export the same project as JSON too, to {root / 'export.json'}"
        )
    brush_masks = _list_brush_masks(brush_folder)
    tasks = _read_tasks(root, path, brush_masks)
    labels = {label for _, results, _ in tasks.annotated for label, _ in results}
    classes, value_of = classes_above_background(path, sorted(labels))
    samples = []
    rectangles = 0
    for image, results, task in tasks.annotated:
        regions: list[Region] = []
        for label, result in results:
            with error_context(f"{path}: task {task}: {label}"):
                regions.append(_region(result, value_of[label]))
        rectangles += sum(isinstance(region, Rectangle) for region in regions)
        # The JSON export keeps the order of the regions; the names of PNG files do not.
        by_area = any(isinstance(region, BrushMask) for region in regions)
        frame = _recorded_size(results)
        mask = RegionMask(path, image.name, tuple(regions), by_area=by_area, frame=frame)
        samples.append(Sample(sample_name(root, image), image, mask))
    order = ("smaller", "larger") if brush_masks else ("later", "earlier")
    empty = sum(not results for _, results, _ in tasks.annotated)
    notes = [
        f"Label Studio: {len(classes)} classes from the labels used; unlabeled pixels are "
        f"background; {order[0]} regions are on top of {order[1]} ones"
    ]
    for count, text in (
        (tasks.pending, "tasks skipped because they have no annotation"),
        (tasks.multiple, "tasks with several annotations, of which the first is used"),
        (rectangles, "rectangles read as regions (all pixels inside have the class)"),
        (empty, "tasks with an empty annotation (all background)"),
    ):
        if count:
            notes.append(f"{text}: {count}")
    return Source(root, "label-studio", {"all": samples}, classes, False, notes)


def _read_tasks(root: Path, path: Path, brush_masks: _BrushMasks) -> _Tasks:
    images = _images_by_name(root)
    tasks = _Tasks()
    problems: list[str] = []
    for entry in json_yaml.read_json(path):
        task = json_yaml.field(path, entry, "id", int, "a task")
        results, count = _results(entry)
        tasks.multiple += count > 1
        if results is None:
            tasks.pending += 1
            continue
        name = _image_name(entry)
        image = images.get(name) or images.get(_UPLOAD_PREFIX.sub("", name))
        if image is None:
            problems.append(
                f"{path}: task {task}: its image {name!r} is not in {root / 'images'}: put it there"
            )
            continue
        with collect_errors(problems), error_context(f"{path}: task {task}"):
            labeled = _labeled_results(results) or brush_masks.get(task, [])
            tasks.annotated.append((image, labeled, task))
    raise_problems(problems)
    if not tasks.annotated:
        raise InputError(f"{path}: contains no annotated task: annotate tasks and export again")
    return tasks


def _results(task: Any) -> tuple[Any, int]:
    """Results of the first annotation that was not cancelled, and the number of annotations.

    The JSON-MIN format has no annotations; it stores results in lists under the control's name.
    """
    annotations = task.get("annotations", task.get("completions"))
    if isinstance(annotations, list):
        valid = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
        return (valid[0].get("result") or [] if valid else None), len(valid)
    lists = [value for value in task.values() if isinstance(value, list)]
    flat = [entry for value in lists for entry in value if isinstance(entry, dict)]
    return ([{"value": entry, **entry} for entry in flat] or None), 1


def _labeled_results(results: Any) -> list[tuple[str, Any]]:
    """(label, result) of each result with an area in the JSON."""
    labeled: list[tuple[str, Any]] = []
    if not isinstance(results, list):
        raise InputError(f"result is {results!r}: export the project again")
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            raise InputError("a result has no value: export the project again")
        area = next((key for key in _AREAS if value.get(key)), "")
        labels = value.get(area)
        if not isinstance(labels, list) or not labels:
            kind = result.get("type") or next((k for k in value if k.endswith("labels")), "?")
            if isinstance(kind, str) and kind in _IMAGE_LEVEL:
                continue
            raise InputError(
                f"a result of type {kind!r} is not supported (allowed: {', '.join(_AREAS)}): "
                "annotate the region with one of these, or remove it"
            )
        if area in _SHAPES or "rle" in value or "points" in value:
            labeled.append((str(labels[0]), result))
    return labeled


def _recorded_size(results: list[tuple[str, Any]]) -> tuple[int, int] | None:
    """Return (height, width) of the image as it was annotated, if the export records it."""
    for _, result in results:
        if isinstance(result, dict):
            height, width = result.get("original_height"), result.get("original_width")
            if isinstance(height, int) and isinstance(width, int):
                return height, width
    return None


def _region(result: Any, value: int) -> Region:
    if isinstance(result, Path):
        return BrushMask(value, result)
    content = result["value"]
    if "points" in content:
        points = content["points"]
        if not isinstance(points, list) or not all(isinstance(point, list) for point in points):
            raise InputError("its points are not pairs of numbers: export the project again")
        ring = as_ring([x for point in points for x in point])
        return Polygons(value, (ring / 100,), relative=True)  # stored in percent
    if content.get("ellipselabels"):
        x, y, radius_x, radius_y = _fractions(content, "x", "y", "radiusX", "radiusY")
        return Ellipse(value, (x, y), (radius_x, radius_y), _rotation(content))
    if content.get("rectanglelabels"):
        x, y, width, height = _fractions(content, "x", "y", "width", "height")
        return Rectangle(value, (x, y), (width, height), _rotation(content))
    rle = whole_numbers(content["rle"])
    height, width = result.get("original_height"), result.get("original_width")
    if rle is None or not all(0 <= number < 256 for number in rle):
        raise InputError("its rle is not a list of bytes: export the project again")
    if type(height) is not int or type(width) is not int:
        raise InputError("has no original_width and original_height: export the project again")
    return BrushRLE(value, bytes(rle), (height, width))


def _fractions(content: Any, *keys: str) -> list[float]:
    """Position (x, y) and extent (x, y), stored in percent, as fractions of the image's size."""
    numbers = [content.get(key) for key in keys]
    finite = all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
    if not finite or min(numbers[2:]) <= 0:
        raise InputError(
            f"its {', '.join(keys[:-1])} and {keys[-1]} are {numbers}: give percentages, the last "
            "two above 0, or remove the region"
        )
    return [number / 100 for number in numbers]


def _rotation(content: Any) -> float:
    degrees = content.get("rotation") or 0
    if type(degrees) not in (int, float) or not math.isfinite(degrees):
        raise InputError(f"its rotation is {degrees!r}: give degrees, or export the project again")
    return float(degrees)


def _list_brush_masks(folder: Path | None) -> _BrushMasks:
    """(label, PNG file) by task, of the task's first annotation.

    In the file name, `by` is followed by the annotator, the name of the control (`tag` by default)
    and the label, separated by hyphens.
    """
    by_task: dict[int, _BrushMasks] = {}
    for path in list_images(folder) if folder is not None else []:
        match = _PNG.fullmatch(path.name)
        if match:
            rest = match[3]
            label = rest.partition("-tag-")[2] or rest.rpartition("-")[2]
            by_annotation = by_task.setdefault(int(match[1]), {})
            by_annotation.setdefault(int(match[2]), []).append((label, path))
    return {task: by_annotation[min(by_annotation)] for task, by_annotation in by_task.items()}


def _images_by_name(root: Path) -> dict[str, Path]:
    """Images by file name, with and without the prefix that an upload adds."""
    present = folders_in(root)
    folders = [present[name] for name in _IMAGE_FOLDERS if name in present] or [root]
    by_name: dict[str, Path] = {}
    for path in (path for folder in folders for path in list_images(folder)):
        by_name.setdefault(path.name, path)
        by_name.setdefault(_UPLOAD_PREFIX.sub("", path.name), path)
    return by_name


def _image_name(task: Any) -> str:
    """File name of a task's image, from `data` (any key) or from the keys of JSON-MIN."""
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    texts = [data.get("image"), task.get("file_upload"), *data.values()]
    names = [text for text in texts if isinstance(text, str) and re.search(r"\.\w{2,5}$", text)]
    url = urlparse(names[0] if names else "")
    local = parse_qs(url.query).get("d", [url.path])[0]  # /data/local-files/?d=a/b.jpg
    return Path(unquote(local)).name
