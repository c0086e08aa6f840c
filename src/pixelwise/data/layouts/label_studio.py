"""Label Studio: the JSON export with brush strokes, polygons, ellipses or rectangles, or brush PNG
files with a JSON."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from pixelwise.data import json_yaml
from pixelwise.data.image_files import list_images, read_mask
from pixelwise.data.layouts.folder_names import first_names, folders_in
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.layouts.shape_classes import classes_above_background
from pixelwise.data.polygons import Drawn, Ellipse, Polygons, Rectangle, Region, as_ring
from pixelwise.data.rle import BrushRLE, whole_numbers
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError, refuse

DESCRIPTION = "Label Studio: the JSON export beside images/ (and task-...-tag-LABEL-0.png if any)"

_KEYS = {"annotations", "completions", "predictions", "data", "file_upload", "image", "annotator"}
_PNG = re.compile(r"task-(\d+)-annotation-(\d+)-by-(.+)-\d+\.png")
_SHAPES = ("ellipselabels", "rectanglelabels")
_AREAS = ("brushlabels", "polygonlabels", *_SHAPES)
_OF_THE_WHOLE = {"choices", "textarea", "rating", "number", "relation"}
"""Results that say something about the whole image and cover none of it."""
_FOLDERS = ("images", "image", "imgs", "img", "upload", "media")
_HASH = re.compile(r"^[0-9a-f]{8}-")  # what an upload puts before the file's own name


@dataclass(frozen=True)
class Stroke:
    """A brush_labels PNG of one label: 0 outside, more inside."""

    value: int
    path: Path

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        stored = read_mask(self.path)
        if stored.shape != size:
            raise InputError(
                f"{self.path.name} is {'x'.join(map(str, stored.shape[1::-1]))} and the image "
                f"{size[1]}x{size[0]}: export the PNG files again"
            )
        return np.asarray(stored > 127 if stored.max(initial=0) > 1 else stored > 0)


def detect(root: Path) -> bool:
    return _export(root) is not None or bool(_strokes_folder(root))


def _export(root: Path) -> Path | None:
    for path in sorted(root.glob("*.json"))[:20]:
        keys = json_yaml.top_keys(path)
        if "[]" in keys and keys & _KEYS:
            return path
    return None


def _strokes_folder(root: Path) -> Path | None:
    for folder in (root, *folders_in(root).values()):
        names = first_names(folder, frozenset({".png"}))
        if any(_PNG.fullmatch(name) for name in names):
            return folder
    return None


def read(root: Path) -> Source:
    path = _export(root)
    if path is None:
        raise InputError(
            f"{_strokes_folder(root)}: PNG files of brush strokes say the number of a task, not "
            f"its image: export the same project as JSON too, into {root / 'export.json'}"
        )
    tasks = json_yaml.read_json(path)
    strokes = _strokes(_strokes_folder(root))
    images = _images(root)
    problems: list[str] = []
    found: list[tuple[Path, list[tuple[str, Any]], int]] = []
    undone = several = 0
    for task in tasks:
        key = json_yaml.field(path, task, "id", int, "a task")
        results, count = _results(task)
        several += count > 1
        if results is None:
            undone += 1
            continue
        image = _image(images, task)
        if image is None:
            problems.append(
                f"{path}: task {key}: its image {_stated_image(task)!r} is not in "
                f"{root / 'images'}: put it there"
            )
            continue
        try:
            found.append((image, _labeled(path, key, results, strokes), key))
        except InputError as error:
            problems += error.problems
    refuse(problems)
    if not found:
        raise InputError(f"{path}: no task in it is annotated: annotate, then export again")
    classes, value_of = classes_above_background(
        path, sorted({label for _, parts, _ in found for label, _ in parts})
    )
    samples = []
    boxes = 0
    for image, parts, key in found:
        regions: list[Region] = []
        for label, part in parts:
            try:
                regions.append(_region(part, value_of[label]))
            except InputError as error:
                raise InputError(f"{path}: task {key}: {label}: {error}") from error
        # The names of PNG files keep no order of the strokes, the JSON does.
        by_area = any(isinstance(region, Stroke) for region in regions)
        boxes += sum(isinstance(region, Rectangle) for region in regions)
        mask = Drawn(path, image.name, tuple(regions), by_area=by_area)
        samples.append(Sample(sample_name(root, image), image, mask))
    above = "smaller strokes lie on larger" if strokes else "later strokes lie on earlier"
    notes = [
        f"Label Studio: {len(classes)} classes from the labels used, background where nothing is "
        f"drawn; {above} ones"
    ]
    if undone:
        notes.append(f"left out: {undone} tasks without an annotation")
    if several:
        notes.append(f"{several} tasks have several annotations: the first is used")
    if boxes:
        notes.append(f"{boxes} rectangles are taken for areas: all within them is of the class")
    empty = sum(not parts for _, parts, _ in found)
    if empty:
        notes.append(f"{empty} tasks are annotated with nothing: all background")
    return Source(root, "label-studio", {"all": samples}, classes, False, notes)


def _results(task: Any) -> tuple[Any, int]:
    """The results of the first annotation that was not cancelled, and how many there are.

    JSON-MIN has no annotations: the results stand under the name of the control, as lists.
    """
    annotations = task.get("annotations", task.get("completions"))
    if isinstance(annotations, list):
        kept = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")]
        return (kept[0].get("result") or [] if kept else None), len(kept)
    lists = [value for value in task.values() if isinstance(value, list)]
    flat = [entry for value in lists for entry in value if isinstance(entry, dict)]
    return ([{"value": entry, **entry} for entry in flat] or None), 1


def _labeled(
    path: Path, key: int, results: Any, strokes: dict[int, list[tuple[str, Path]]]
) -> list[tuple[str, Any]]:
    """(label, result or PNG file) of each region of a task."""
    parts: list[tuple[str, Any]] = []
    if not isinstance(results, list):
        raise InputError(f"{path}: task {key}: result = {results!r}: export it again")
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            raise InputError(f"{path}: task {key}: a result has no value: export it again")
        area = next((key for key in _AREAS if value.get(key)), "")
        labels = value.get(area)
        if not isinstance(labels, list) or not labels:
            kind = result.get("type") or next((k for k in value if k.endswith("labels")), "?")
            if isinstance(kind, str) and kind in _OF_THE_WHOLE:
                continue
            raise InputError(
                f"{path}: task {key}: a result of type {kind!r} has no area that is read: "
                f"{', '.join(_AREAS)} are; draw it so or remove it"
            )
        if area in _SHAPES or "rle" in value or "points" in value:
            parts.append((str(labels[0]), result))
    if not parts:
        parts = list(strokes.get(key, []))
    return parts


def _region(part: Any, value: int) -> Region:
    if isinstance(part, Path):
        return Stroke(value, part)
    content = part["value"]
    if "points" in content:
        points = content["points"]
        if not isinstance(points, list) or not all(isinstance(point, list) for point in points):
            raise InputError("its points are not pairs of numbers: export the project again")
        ring = as_ring([x for point in points for x in point])
        return Polygons(value, (ring / 100,), relative=True)  # stored as percent
    if content.get("ellipselabels"):
        x, y, radius_x, radius_y = _shares(content, "x", "y", "radiusX", "radiusY")
        return Ellipse(value, (x, y), (radius_x, radius_y), _degrees(content))
    if content.get("rectanglelabels"):
        x, y, width, height = _shares(content, "x", "y", "width", "height")
        return Rectangle(value, (x, y), (width, height), _degrees(content))
    numbers = whole_numbers(content["rle"])
    height, width = part.get("original_height"), part.get("original_width")
    if numbers is None or not all(0 <= number < 256 for number in numbers):
        raise InputError("its rle is no list of bytes: export the project again")
    if type(height) is not int or type(width) is not int:
        raise InputError("has no original_width and original_height: export the project again")
    return BrushRLE(value, bytes(numbers), (height, width))


def _shares(content: Any, x: str, y: str, across: str, down: str) -> list[float]:
    """A place and an extent, stored as percent of the width and height, as shares of them."""
    numbers = [content.get(key) for key in (x, y, across, down)]
    finite = all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
    if not finite or numbers[2] <= 0 or numbers[3] <= 0:
        raise InputError(
            f"its {x}, {y}, {across} and {down} are {numbers}: give percent, the last two "
            "above 0, or remove it"
        )
    return [number / 100 for number in numbers]


def _degrees(content: Any) -> float:
    turned = content.get("rotation") or 0
    if type(turned) not in (int, float) or not math.isfinite(turned):
        raise InputError(f"its rotation is {turned!r}: give degrees, or export the project again")
    return float(turned)


def _strokes(folder: Path | None) -> dict[int, list[tuple[str, Path]]]:
    """Task to its (label, PNG file), by name; of several annotations the first's.

    What follows `by` is the annotator, the name of the control, `tag` unless changed, and the
    label, with hyphens between.
    """
    found: dict[int, dict[int, list[tuple[str, Path]]]] = {}
    for path in list_images(folder) if folder is not None else []:
        match = _PNG.fullmatch(path.name)
        if match:
            rest = match[3]
            label = rest.partition("-tag-")[2] or rest.rpartition("-")[2]
            by_annotation = found.setdefault(int(match[1]), {})
            by_annotation.setdefault(int(match[2]), []).append((label, path))
    return {task: parts[min(parts)] for task, parts in found.items()}


def _images(root: Path) -> dict[str, Path]:
    present = folders_in(root)
    places = [present[name] for name in _FOLDERS if name in present] or [root]
    found: dict[str, Path] = {}
    for place in places:
        for path in list_images(place):
            found.setdefault(path.name, path)
            found.setdefault(_HASH.sub("", path.name), path)
    return found


def _stated_image(task: Any) -> str:
    """The image's name: of `data` (any key), or of JSON-MIN's keys."""
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    texts = [data.get("image"), task.get("file_upload"), *data.values()]
    suffixed = [text for text in texts if isinstance(text, str) and re.search(r"\.\w{2,5}$", text)]
    address = urlparse(suffixed[0] if suffixed else "")
    local = parse_qs(address.query).get("d", [address.path])[0]  # /data/local-files/?d=a/b.jpg
    return Path(unquote(local)).name


def _image(images: dict[str, Path], task: Any) -> Path | None:
    name = _stated_image(task)
    return images.get(name) or images.get(_HASH.sub("", name))
