"""YOLO polygons: data.yaml, images/SPLIT/NAME.jpg, labels/SPLIT/NAME.txt (`class x1 y1 ...`).

The paths in data.yaml are resolved as Ultralytics does
(https://docs.ultralytics.com/datasets/segment): `train`, `val` and `test` are a folder, a list file
with one image per line, or a list of either, relative to `path`. Paths of another machine are
searched in the dataset. If none of them exists, images/ and labels/ are used.

An image without a label file has no objects. That is assumed only if other images of the same
folder or list have label files, and if no label file is left that may be the missing one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.data import json_yaml
from pixelwise.data.class_tables import read_lines
from pixelwise.data.classes import normalize_name
from pixelwise.data.file_resolver import Claims, FileResolver, path_parts
from pixelwise.data.folder_listing import list_files, walk_files
from pixelwise.data.image_files import IMAGE_SUFFIXES, list_images
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
from pixelwise.errors import Fault, InputError, raise_problems
from pixelwise.file_io import exists

DESCRIPTION = "YOLO polygons: data.yaml with names, images/SPLIT/ and labels/SPLIT/NAME.txt"

_TEXT = frozenset({".txt"})
_NOT_LABELS = frozenset({"classes.txt", "labels.txt", "train.txt", "val.txt", "test.txt"})
_MARGIN = 0.01
"""Tolerance, as a fraction of the image's size, for corners outside the image."""


@dataclass
class _ImageSet:
    """Images of one split that come from one folder or list file.

    Attributes:
        origin: The folder or list file.
        images: The image files, each with the path where its label file is expected.
        labels: The label files in the folders where label files are expected.
        other_images: Images beside those of a list, which have label files in the same folders.
    """

    origin: Path
    images: dict[Path, Path]
    labels: list[Path]
    other_images: list[Path]


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
    return any(_has_labels(root, entry) for entries in paths.values() for entry in entries)


def _has_labels(root: Path, entry: Path) -> bool:
    """Whether a folder or list file leads to label files, judged by a few of its entries."""
    if entry.is_dir():
        folders = [entry, *list(folders_in(entry).values())[:8]]
        return any(first_names(_label_file(folder / "_").parent, _TEXT) for folder in folders)
    with entry.open(encoding="utf-8-sig", errors="replace") as stream:
        lines = [stream.readline().strip() for _ in range(8)]
    images = [_resolve(root, [entry.parent, root], line) for line in lines if line]
    return any(first_names(_label_file(image).parent, _TEXT) for image in images if image)


def _label_file(image: Path) -> Path:
    """The label file of an image, as in Ultralytics: the last `images` in the path is `labels`."""
    return _label_files(image)[0]


def _label_files(image: Path) -> list[Path]:
    """The possible label files of an image: any `images` in the path is `labels`, the last first.

    If no folder is called `images`, the label file is beside the image.
    """
    parts = image.with_suffix(".txt").parts
    places = [place for place in range(len(parts) - 2, -1, -1) if parts[place] == "images"]
    files = [Path(*parts[:place], "labels", *parts[place + 1 :]) for place in places]
    return files or [Path(*parts)]


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
            resolved = _resolve(root, bases, entry)
            if resolved is not None:
                paths.setdefault(split, []).append(resolved)
            elif split != "test":
                missing.append(
                    f"{path}: {split}: {entry} does not exist in {bases[0]}: correct the path"
                )
    if paths:
        raise_problems(missing)
    return paths


def _resolve(root: Path, bases: list[Path], entry: str) -> Path | None:
    """The existing path of an entry: as written, else by the longest end of it inside `root`.

    Roboflow writes `../train/images` for train/images.
    """
    text = entry.replace("\\", "/")
    written = [base / each for base in bases for each in (entry, text, text.removeprefix("../"))]
    parts = path_parts(text)
    ends = [root.joinpath(*parts[start:]) for start in range(len(parts))]
    return next((path for path in (*written, *ends) if exists(path)), None)


def _image_sets(root: Path, path: Path) -> dict[str, list[_ImageSet]]:
    paths = _paths_in_yaml(root, path)
    problems: list[str] = []
    sets: dict[str, list[_ImageSet]] = {}
    for split, entries in paths.items():
        for entry in entries:
            with collect_errors(problems):
                add = _in_folder(entry) if entry.is_dir() else _in_list(root, entry)
                sets.setdefault(split, []).append(add)
    if not paths:
        folders = _label_folders(root)
        problems += _images_outside_splits(root, folders)
        for split, (images, labels) in folders.items():
            sets[split] = [_in_folder(images, labels)]
    raise_problems(problems)
    return sets


def _in_folder(folder: Path, labels: Path | None = None) -> _ImageSet:
    """The images of a folder and its subfolders. `labels` is the folder of their label files."""
    images = list(walk_files(folder, IMAGE_SUFFIXES))
    if labels is None:
        labels = _label_file(folder / "_").parent
        expected = {image: _label_file(image) for image in images}
    else:
        expected = {
            image: (labels / image.relative_to(folder)).with_suffix(".txt") for image in images
        }
    listed = _list_labels(labels)
    return _ImageSet(folder, expected, listed + _labels_beside(expected, listed), [])


def _in_list(root: Path, file: Path) -> _ImageSet:
    """The images of a list file."""
    images = FileResolver(root, walk_files(root, IMAGE_SUFFIXES))
    listed: dict[Path, Path] = {}
    claims = Claims()
    problems: list[str] = []
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        where = f"{file}: line {number}"
        with collect_errors(problems):
            found = images.candidates(line.strip(), [file.parent], [root])
            if not found:
                raise InputError(f"{where}: {line.strip()} does not exist: correct the line")
            if len(found) > 1:
                raise InputError(f"{where}: {images.ambiguous(line.strip(), found)}")
            claims.add(found[0], f"line {number} of {file}")
            listed[found[0]] = _label_file(found[0])
    raise_problems(problems)
    places = _parents(label for image in listed for label in _label_files(image))
    outer = [p for p in places if not any(o != p and p.is_relative_to(o) for o in places)]
    labels = [label for folder in outer for label in _list_labels(folder)]
    present = set(labels)
    for image, label in listed.items():
        listed[image] = next((x for x in _label_files(image) if x in present), label)
    labels += _labels_beside(listed, labels)
    others = [image for folder in _parents(listed) for image in list_images(folder)]
    return _ImageSet(file, listed, labels, [image for image in others if image not in listed])


def _labels_beside(expected: dict[Path, Path], labels: list[Path]) -> list[Path]:
    """Label files beside images that have none where it is expected: they are expected there."""
    beside = {label for folder in _parents(expected) for label in list_files(folder, _TEXT)}
    present = set(labels)
    beside -= present
    found = []
    for image, label in expected.items():
        if label not in present and image.with_suffix(".txt") in beside:
            expected[image] = image.with_suffix(".txt")
            found.append(expected[image])
    return found


def _parents(files: Any) -> list[Path]:
    return list(dict.fromkeys(file.parent for file in files))


def _list_labels(folder: Path) -> list[Path]:
    return list(walk_files(folder, _TEXT)) if folder.is_dir() else []


def _label_folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """images/ and labels/ of each split (or `all`), with the splits inside them or around them."""
    images, labels = root / "images", root / "labels"
    if images.is_dir() and labels.is_dir():
        of_labels = split_folders(labels)
        splits = split_folders(images)
        pairs = {s: (f, of_labels.get(s, labels / f.name)) for s, f in splits.items()}
        return pairs or {"all": (images, labels)}
    return {
        split: (folder / "images", folder / "labels")
        for split, folder in split_folders(root).items()
        if "labels" in folders_in(folder)
    }


def _images_outside_splits(root: Path, folders: dict[str, tuple[Path, Path]]) -> list[str]:
    """Report images in images/ beside the folders of the splits, which would not be read."""
    splits = [images for images, _ in folders.values()]
    if "all" in folders or not splits or splits[0].parent != root / "images":
        return []
    text = f"is outside the splits: move it into {splits[0].name}/ or another split"
    return [
        Fault("stray-file", image, text)
        for image in walk_files(root / "images", IMAGE_SUFFIXES)
        if not any(image.is_relative_to(split) for split in splits)
    ]


def class_names(path: Path) -> list[str]:
    """Read `names` of a data.yaml: a list, or a mapping from consecutive numbers 0, 1, ...

    Raises:
        InputError: If there are no names, or a number is missing.
    """
    content = json_yaml.read_yaml(path)
    if "kpt_shape" in content:
        raise InputError(
            f"{path}: kpt_shape says that the label files hold boxes and key points, not polygons: "
            "export polygons (segmentation), and remove kpt_shape"
        )
    names: Any = content.get("names")
    if isinstance(names, dict):
        if sorted(names) != sorted(map(str, range(len(names)))):
            raise InputError(f"{path}: names have gaps in their numbers: number them 0, 1, 2, ...")
        names = [name for _, name in sorted((int(key), name) for key, name in names.items())]
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: has no names: write `names: [first, second]`")
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: names are {json_yaml.brief(names)}: write each as text")
    count = content.get("nc", str(len(names)))
    if count != str(len(names)):
        raise InputError(
            f"{path}: nc is {json_yaml.brief(count)}, but there are {len(names)} names: correct "
            "one of them"
        )
    return [normalize_name(name) for name in names]


def read(root: Path) -> Source:
    path = data_yaml(root)
    assert path is not None  # guaranteed by detect
    names = class_names(path)
    classes, value_of = classes_above_background(path, names)
    values = [value_of[name] for name in names]
    problems: list[str] = []
    notes: list[str] = []
    splits: dict[str, list[Sample]] = {}
    empty = total = 0
    sets = _image_sets(root, path)
    for split, image_set in ((s, each) for s in (*SPLITS, "all") for each in sets.get(s, ())):
        if split == "test" and image_set.images and not image_set.labels:
            count = len(image_set.images)
            notes.append(f"test is skipped: none of its images has a label file ({count} listed)")
            continue
        label_of = _labels_of_images(root, image_set, problems)
        for image, expected in image_set.images.items():
            label = label_of.get(image)
            with collect_errors(problems):
                regions = _regions(label, values) if label is not None else ()
                total += 1
                empty += not regions
                mask = RegionMask(label or expected, image.name, regions, by_area=True)
                splits.setdefault(split, []).append(Sample(sample_name(root, image), image, mask))
        if not image_set.images:
            problems.append(f"{image_set.origin}: contains no images: put images there")
    raise_problems(problems)
    background = classes.names[0]
    first = (
        f"YOLO: {len(classes)} classes from {path}; pixels without an object are {background}; "
        "smaller objects are on top of larger ones"
    )
    if empty:
        notes.append(f"images without objects (all {background}): {empty} of {total}")
    return Source(root, "yolo", splits, classes, False, [first, *notes])


def _labels_of_images(root: Path, image_set: _ImageSet, problems: list[str]) -> dict[Path, Path]:
    """The label file of each image that has one.

    A label file whose folder, letter case or Unicode form differs from the image's is found if it
    can belong to no other image. Adds problems for label files that belong to no image or to
    several, and for images that cannot be assumed to have no objects.
    """
    claims = Claims()
    found: dict[Path, Path] = {}
    present = set(image_set.labels)
    missing = []
    for image, expected in image_set.images.items():
        if expected not in present:
            missing.append(image)
            continue
        with collect_errors(problems):
            claims.add(expected, str(image))
            found[image] = expected
    images = FileResolver(root, (*image_set.images, *image_set.other_images))
    labels = FileResolver(root, image_set.labels, "label file")
    for image in missing:
        reference = image_set.images[image].with_suffix("").as_posix()
        with collect_errors(problems):
            candidates = labels.candidates(reference)
            if len(candidates) > 1:
                raise InputError(f"{image}: {labels.ambiguous(reference, candidates)}")
            for label in candidates:
                owners = images.candidates(label.with_suffix("").as_posix())
                if len(owners) > 1:
                    raise InputError(f"{label}: {images.ambiguous(label.stem, owners)}")
                claims.add(label, str(image))
                found[image] = label
    unused = [x for x in labels.files if x not in claims and x.name.casefold() not in _NOT_LABELS]
    if image_set.other_images:
        others = set(image_set.other_images)
        owners_of = {x: set(images.candidates(x.with_suffix("").as_posix())) for x in unused}
        unused = [x for x in unused if not owners_of[x] or not owners_of[x] <= others]
    if len(found) < len(image_set.images) or image_set.origin.is_dir():
        problems += [
            f"{label}: has no image: add {image_set.origin / label.stem}.jpg or .png, or remove "
            "the file"
            for label in unused
        ]
    if image_set.images and not found:
        folder = next(iter(image_set.images.values())).parent
        problems.append(
            f"{image_set.origin}: none of its {len(image_set.images)} images has a label file in "
            f"{folder}: add the label files; an image without objects may have an empty one"
        )
    return found


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
        number, corners = float(cells[0]), [float(cell) for cell in cells[1:]]
        index = int(number)
    except (ValueError, OverflowError) as error:
        raise InputError("contains a value that is not a number: correct it") from error
    if len(corners) == 4:
        raise InputError("is a box, not a polygon: export polygons (segmentation)")
    if index != number or not 0 <= index < len(values):
        raise InputError(
            f"class {cells[0]} is not in data.yaml (0 to {len(values) - 1}): correct the class or "
            "add its name"
        )
    ring = as_ring(corners)
    low, high = ring.min(), ring.max()
    if low < -_MARGIN or high > 1 + _MARGIN:
        raise InputError(
            f"a corner is at {low if low < 0 else high:g}: write fractions of the width and height "
            "from 0 to 1"
        )
    return Polygons(values[index], (ring,), relative=True)
