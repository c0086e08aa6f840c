"""Label Studio: a JSON export with polygons, ellipses, rectangles, and brush masks (RLE or PNG)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data import json_yaml
from pixelwise.data.classes import listed, normalize_name
from pixelwise.data.file_resolver import Claims, FileResolver, path_parts, reference_paths
from pixelwise.data.folder_listing import list_files, walk_files
from pixelwise.data.image_files import IMAGE_SUFFIXES, list_images
from pixelwise.data.layouts.error_handling import collect_errors, error_context
from pixelwise.data.layouts.folder_names import first_names, folders_in
from pixelwise.data.layouts.layout_classes import classes_above_background
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.mask_files import read_stored_mask
from pixelwise.data.polygons import Ellipse, Polygons, Rectangle, Region, RegionMask, as_ring
from pixelwise.data.rle import BrushRLE, whole_numbers
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError, raise_problems
from pixelwise.file_io import read_text

DESCRIPTION = "Label Studio: a JSON export and images/ (optionally task-...-tag-LABEL-0.png files)"

_KEYS = {"annotations", "completions", "predictions", "data", "file_upload", "image", "annotator"}
_PNG = re.compile(r"task-(\d+)-annotation-(\d+)-by-(.+)-\d+\.png")
_AREAS = ("brushlabels", "polygonlabels", "ellipselabels", "rectanglelabels")
_OTHER_RESULTS = {"choices", "textarea", "rating", "number", "relation", "taxonomy", "pairwise"}
"""Types of results that describe the image, a region or two of them, and have no area."""
_AREA_TYPES = {"brush", "polygon", "ellipse", "rectangle", "labels", *_AREAS}
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "upload", "media")
_UPLOAD = re.compile(r"([0-9a-f]{8})-(.+)")
"""The name of an uploaded file: eight digits of a random number, and the name of the original."""
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])\d\d|[0-3]\d[0-3]\d(19|20)\d\d")
_STORAGE = re.compile(r"[?&](d|fileuri)=|^(?!https?:)[a-z0-9]+://", re.IGNORECASE)
"""An address in a storage, where files keep their names."""

CONFIG = "label_config.xml"
"""The labeling configuration of the project, which a JSON export does not contain."""
_CONFIGURED = re.compile(r"""<Label\s[^<>]*?\bvalue\s*=\s*("[^"]*"|'[^']*')""")

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
    return bool(_export_files(root)) or _brush_folder(root) is not None


def _export_files(root: Path) -> list[Path]:
    found = []
    for path in list_files(root, {".json"})[:20] if root.is_dir() else []:
        keys = json_yaml.top_keys(path)
        if "[]" in keys and keys & _KEYS:
            found.append(path)
    return found


def _brush_folder(root: Path) -> Path | None:
    for folder in (root, *folders_in(root).values()):
        if any(_PNG.fullmatch(name) for name in first_names(folder, frozenset({".png"}))):
            return folder
    return None


@dataclass
class _Task:
    """An annotated task: its id, its image, and its regions by label (JSON or PNG file)."""

    key: int
    image: Path
    regions: list[tuple[str, Any]]


@dataclass
class _Tasks:
    """The annotated tasks of an export, and counts for the notes.

    Attributes:
        annotated: The tasks with an annotation.
        pending: Number of tasks without an annotation.
        multiple: Number of tasks with several annotations.
        unlabeled: Number of regions without a label.
    """

    annotated: list[_Task] = field(default_factory=list)
    pending: int = 0
    multiple: int = 0
    unlabeled: int = 0


def read(root: Path) -> Source:
    exports, brush_folder = _export_files(root), _brush_folder(root)
    if not exports:
        raise InputError(
            f"{brush_folder}: the names of brush PNG files contain the task but not the image: "
            f"export the same project as JSON too, to {root / 'export.json'}"
        )
    path = exports[0]
    if len(exports) > 1:
        raise InputError(f"{path}: is an export, and {exports[1].name} is another one: keep one")
    brush_masks = _list_brush_masks(brush_folder)
    tasks = _read_tasks(root, path, brush_masks)
    labels = {label for task in tasks.annotated for label, _ in task.regions}
    names = list(dict.fromkeys([*_configured(root / CONFIG), *sorted(labels)]))
    classes, value_of = classes_above_background(path, names)
    samples = []
    problems: list[str] = []
    shapes: list[Region] = []
    for task in tasks.annotated:
        regions: list[Region] = []
        for label, result in task.regions:
            with collect_errors(problems), error_context(f"{path}: task {task.key}: {label}"):
                regions.append(_region(result, value_of[label]))
        shapes += regions
        # The JSON export keeps the order of the regions; the names of PNG files do not.
        by_area = any(isinstance(region, BrushMask) for region in regions)
        frame = _recorded_size(task.regions)
        mask = RegionMask(path, task.image.name, tuple(regions), by_area=by_area, frame=frame)
        samples.append(Sample(sample_name(root, task.image), task.image, mask))
    raise_problems(problems)
    _check_percentages(path, shapes)
    rectangles = sum(isinstance(region, Rectangle) for region in shapes)
    order = ("smaller", "larger") if brush_masks else ("later", "earlier")
    empty = sum(not task.regions for task in tasks.annotated)
    notes = [
        f"Label Studio: {len(classes)} classes from the labels "
        f"{'in the configuration' if (root / CONFIG).is_file() else 'used'}; unlabeled pixels are "
        f"background; {order[0]} regions are on top of {order[1]} ones"
    ]
    for count, text in (
        (tasks.pending, "tasks skipped because they have no annotation"),
        (tasks.multiple, "tasks with several annotations: the ground truth or the first is used"),
        (tasks.unlabeled, "regions left out because they have no label"),
        (rectangles, "rectangles read as regions (all pixels inside have the class)"),
        (empty, "tasks with an empty annotation (all background)"),
    ):
        if count:
            notes.append(f"{text}: {count}")
    return Source(root, "label-studio", {"all": samples}, classes, False, notes)


def _configured(path: Path) -> list[str]:
    """The names of the labels in a labeling configuration, in order; none without the file."""
    if not path.is_file():
        return []
    values = _CONFIGURED.findall(read_text(path))  # no XML parser, which could expand entities
    return [normalize_name(unescape(value[1:-1])) for value in values]


def _read_tasks(root: Path, path: Path, brush_masks: _BrushMasks) -> _Tasks:
    images = _TaskImages(root)
    tasks = _Tasks()
    problems: list[str] = []
    pending: list[tuple[int, Any]] = []
    used: set[str] = set()
    for entry in json_yaml.read_json(path):
        key = json_yaml.field(path, entry, "id", int, "a task")
        results, count = _results(entry)
        tasks.multiple += count > 1
        if results is None:
            pending.append((key, entry))
            continue
        with collect_errors(problems):
            with error_context(f"{path}: task {key}"):
                image = images.find(entry)
                regions, unlabeled = _labeled_regions(results)
            images.claims.add(image, f"task {key} of {path}")
            used.add(_reference(entry))
            tasks.unlabeled += unlabeled
            tasks.annotated.append(_Task(key, image, regions or brush_masks.get(key, [])))
    for key, entry in pending:  # their images may be absent, but must not be those of other tasks
        try:
            reference, image = _reference(entry), images.find(entry)
        except InputError:
            continue
        with collect_errors(problems):
            if reference not in used:
                images.claims.add(image, f"task {key} of {path}")
    raise_problems(problems)
    if not tasks.annotated:
        raise InputError(f"{path}: contains no annotated task: annotate tasks and export again")
    tasks.pending = len(pending)
    return tasks


class _TaskImages:
    """The images that the tasks of an export refer to."""

    def __init__(self, root: Path) -> None:
        files = [f for f in walk_files(root, IMAGE_SUFFIXES) if not _PNG.fullmatch(f.name)]
        self.claims = Claims()
        self._files = FileResolver(root, files)
        present = folders_in(root)
        folders = [present[name] for name in _IMAGE_FOLDERS if name in present]
        self._near = folders, [root]

    def find(self, task: Any) -> Path:
        """The image of a task. Raises InputError unless exactly one file can be meant."""
        reference = _reference(task)
        found = self._files.candidates(reference, *self._near) or self._uploaded(reference)
        if len(found) > 1:
            raise InputError(f"its {self._files.ambiguous(reference, found)}")
        if not found:
            raise InputError(
                f"its image {reference!r} is not in {self._files.root}: put it there under this "
                "name"
            )
        return found[0]

    def _uploaded(self, reference: str) -> list[Path]:
        """The files whose upload, or the upload of which, is the image of this name.

        A date in a name looks like the number that an upload gets: it is never removed.
        """
        name = (path_parts((reference_paths(reference) or [""])[-1]) or [""])[-1]
        match = _UPLOAD.fullmatch(name)
        if match is None:
            names = ((f, _UPLOAD.fullmatch(f.name)) for f in self._files.files)
            return [f for f, m in names if m and m[2] == name and not m[1].isdigit()]
        prefix, original = match.groups()
        certain = "/upload/" in reference.replace("\\", "/") or not prefix.isdigit()
        if _DATE.fullmatch(prefix) or _STORAGE.search(reference) or not certain:
            return []
        named = self._files.candidates(original, *self._near)
        return named or [f for f in self._files.files if _upload_name(f.name) == original]


def _upload_name(name: str) -> str:
    """The name that Label Studio gives to an uploaded file, without the number."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _reference(task: Any) -> str:
    """The path or URL of a task's image, from `data` (any key) or from the keys of JSON-MIN."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    image, upload = data.get("image"), task.get("file_upload")
    if isinstance(image, str) and image:
        return image
    texts = [text for text in data.values() if isinstance(text, str) and text != upload]
    texts = list(dict.fromkeys(text for text in texts if _names_image(text)))
    if len(texts) > 1:
        raise InputError(f"refers to the images {listed(texts)}: name the image to use `image`")
    if not texts and isinstance(upload, str):
        texts = [f"/data/upload/{upload}"]
    if not texts:
        raise InputError("refers to no image: export the project again")
    return texts[0]


def _names_image(text: str) -> bool:
    return any(Path(path).suffix.lower() in IMAGE_SUFFIXES for path in reference_paths(text))


def _results(task: Any) -> tuple[Any, int]:
    """Results of the annotation that is marked as ground truth, or else of the first one, and the
    number of annotations. Those that were cancelled do not count.

    The JSON-MIN format has no annotations; it stores results in lists under the control's name.
    """
    annotations = task.get("annotations", task.get("completions"))
    if isinstance(annotations, list):
        valid = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
        valid.sort(key=lambda annotation: not annotation.get("ground_truth"))
        return (valid[0].get("result") or [] if valid else None), len(valid)
    lists = [value for value in task.values() if isinstance(value, list)]
    flat = [entry for value in lists for entry in value if isinstance(entry, dict)]
    return ([{"value": entry, **entry} for entry in flat] or None), 1


def _labeled_regions(results: Any) -> tuple[list[tuple[str, Any]], int]:
    """(label, result) of each region with an area in the JSON, and the number without a label.

    The area and the label of a region may be in two results with the same id.
    """
    if not isinstance(results, list):
        raise InputError(f"result is {json_yaml.brief(results)}: export the project again")
    by_region: dict[object, list[dict[str, Any]]] = {}
    for number, result in enumerate(results):
        kind = result.get("type") if isinstance(result, dict) else None
        if isinstance(kind, str) and kind in _OTHER_RESULTS:
            continue
        if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
            raise InputError("a result has no value: export the project again")
        _check_type(result)
        if result.get("image_rotation"):
            raise InputError(
                f"a region was drawn on the image rotated by {result['image_rotation']!r} degrees: "
                "rotate it back in Label Studio and draw the region again"
            )
        if result.get("item_index"):
            raise InputError(
                f"a region is on image {result['item_index']!r} of a task with several images: "
                "give each image its own task"
            )
        key = result.get("id")
        by_region.setdefault(key if isinstance(key, str) else number, []).append(result)
    labeled: list[tuple[str, Any]] = []
    unlabeled = 0
    for region in by_region.values():
        areas = [(_labels(result), result) for result in region if _shape(result) is not None]
        with_label = [(labels, result) for labels, result in areas if labels]
        if areas and not with_label:
            labels = [label for result in region for label in _labels(result)]
            with_label = [(labels, areas[0][1])] if labels else []
            unlabeled += not labels
        for labels, result in with_label:
            if len(set(labels)) > 1:
                raise InputError(f"a region has the labels {listed(labels)}: keep one of them")
            labeled.append((labels[0], result))
    return labeled, unlabeled


def _check_type(result: dict[str, Any]) -> None:
    value = result["value"]
    if not any(value.get(key) for key in (*_AREAS, "labels")):
        kind = result.get("type") or next((k for k in value if k.endswith("labels")), "?")
        if not isinstance(kind, str) or kind not in _AREA_TYPES:
            raise InputError(
                f"a result of type {kind!r} is not supported (allowed: {', '.join(_AREAS)}): "
                "annotate the region with one of these, or remove it"
            )


def _labels(result: dict[str, Any]) -> list[str]:
    """The labels of a result, without empty ones."""
    lists = [result["value"].get(key) for key in (*_AREAS, "labels")]
    labels = [label for each in lists if isinstance(each, list) for label in each]
    return [name for name in (normalize_name(str(label)) for label in labels) if name]


def _shape(result: dict[str, Any]) -> str | None:
    """The shape of a result's area: brush, polygon, ellipse or rectangle; None without an area."""
    value, kind = result["value"], str(result.get("type"))
    if "rle" in value or "points" in value:
        return "brush" if "rle" in value else "polygon"
    if "radiusX" in value or "ellipselabels" in value or kind.startswith("ellipse"):
        return "ellipse"
    if {"width", "height"} <= value.keys() or "rectanglelabels" in value or kind == "rectangle":
        return "rectangle"
    return None


def _recorded_size(results: list[tuple[str, Any]]) -> tuple[int, int] | None:
    """Return (height, width) of the image as it was annotated, if the export records it."""
    for _, result in results:
        if isinstance(result, dict):
            size = json_yaml.image_size(result, "original_height", "original_width")
            if size is not None:
                return size
    return None


def _region(result: Any, value: int) -> Region:
    if isinstance(result, Path):
        return BrushMask(value, result)
    content, shape = result["value"], _shape(result)
    if shape == "polygon":
        points = content["points"]
        if not isinstance(points, list) or not all(isinstance(point, list) for point in points):
            raise InputError("its points are not pairs of numbers: export the project again")
        ring = as_ring([x for point in points for x in point])
        return Polygons(value, (ring / 100,), relative=True)  # stored in percent
    if shape == "ellipse":
        x, y, radius_x, radius_y = _fractions(content, "x", "y", "radiusX", "radiusY")
        return Ellipse(value, (x, y), (radius_x, radius_y), _rotation(content))
    if shape == "rectangle":
        x, y, width, height = _fractions(content, "x", "y", "width", "height")
        return Rectangle(value, (x, y), (width, height), _rotation(content))
    rle = whole_numbers(content["rle"])
    size = json_yaml.image_size(result, "original_height", "original_width")
    if rle is None or not all(0 <= number < 256 for number in rle):
        raise InputError("its rle is not a list of bytes: export the project again")
    if size is None:
        raise InputError("has no original_width and original_height: export the project again")
    return BrushRLE(value, bytes(rle), size)


def _check_percentages(path: Path, regions: list[Region]) -> None:
    """Raise InputError if the file has fractions in place of percentages."""
    farthest = []
    for region in regions:
        if isinstance(region, Polygons):
            farthest.append(float(region.rings[0].max()))
        elif isinstance(region, Ellipse):
            farthest.append(max(region.center))
        elif isinstance(region, Rectangle):
            farthest.append(max(np.add(region.corner, region.sides)))
    if farthest and max(farthest) <= 1 / 100:
        raise InputError(
            f"{path}: all regions lie in the first percent of their images, as fractions would: "
            "write percentages, from 0 to 100"
        )


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
