"""COCO JSON (Lin et al. 2014): polygons and RLE, in annotations/ or beside the images."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.data import json_yaml
from pixelwise.data.classes import listed, normalize_name
from pixelwise.data.file_resolver import Claims, FileResolver
from pixelwise.data.folder_listing import list_files, walk_files
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.error_handling import collect_errors, error_context
from pixelwise.data.layouts.folder_names import folders_in, split_folders
from pixelwise.data.layouts.folder_pairs import IMAGE_FOLDERS
from pixelwise.data.layouts.layout_classes import classes_above_background
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.polygons import Polygons, Region, RegionMask, as_ring
from pixelwise.data.rle import CocoRLE, whole_numbers
from pixelwise.data.source import SPLITS, Sample, Source
from pixelwise.errors import InputError, raise_problems

DESCRIPTION = "COCO: annotations/instances_SPLIT.json, or _annotations.coco.json beside the images"

_OTHER_TASKS = ("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_", "notes.")
"""How the names of other files begin. Label Studio adds notes.json to its exports for YOLO."""
_SPLIT_WORD = re.compile(r"(?<![a-z])(?:mini)?(train|val|test)(?:ing|id|idation|val)?(?![a-z])")
"""A split in the name of a file. `evaluation` and `latest` are other words."""


def detect(root: Path) -> bool:
    return any(_is_coco(path) for folder in _folders(root) for path in _json_files(folder)[:6])


def _folders(root: Path) -> list[Path]:
    """The folders where COCO annotations are expected."""
    present = folders_in(root)
    named = [present[name] for name in ("annotations", "annotation") if name in present]
    return [*named, root, *split_folders(root).values()]


def _json_files(folder: Path) -> list[Path]:
    files = list_files(folder, {".json"})
    return [path for path in files if not path.name.startswith(_OTHER_TASKS)]


def _is_coco(path: Path) -> bool:
    keys = json_yaml.top_keys(path)
    if "written_by" in keys and "categories" not in keys:  # results of a pixelwise command
        return False
    # Files of labelme have `shapes` or `imageData`; files of Label Studio are lists.
    return bool(keys & {"images", "annotations", "categories"}) and not keys & {"[]", "shapes"}


@dataclass
class _Report:
    """Counts and problems over all annotation files."""

    images: int = 0
    empty: int = 0
    crowds: int = 0
    problems: list[str] = field(default_factory=list)


def read(root: Path) -> Source:
    contents = {
        split: (path, json_yaml.read_json(path)) for split, path in _files_by_split(root).items()
    }
    names_of = {split: _categories(path, content) for split, (path, content) in contents.items()}
    names = _ordered_names({contents[split][0]: names for split, names in names_of.items()})
    classes, value_of = classes_above_background(next(iter(contents.values()))[0], names)
    report = _Report()
    images = FileResolver(root, walk_files(root, IMAGE_SUFFIXES))
    splits = {}
    for split, (path, content) in contents.items():
        values = {category: value_of[name] for category, name in names_of[split].items()}
        with collect_errors(report.problems):
            splits[split] = _samples(images, split, path, content, values, report)
    raise_problems(report.problems)
    background = classes.names[0]
    notes = [
        f"COCO: {len(classes)} classes; pixels without an annotation are {background}; smaller "
        "objects are on top of larger ones"
    ]
    if report.empty:
        empty = f"{report.empty} of {report.images}"
        notes.append(f"images without an annotation (all {background}): {empty}")
    if report.crowds:
        notes.append(f"crowd regions labeled with their class: {report.crowds}")
    listed_names = {c["name"] for _, content in contents.values() for c in content["categories"]}
    groups = sorted({normalize_name(name) for name in listed_names} - set(names))
    if groups:
        notes.append(f"categories that only group others are no classes: {listed(groups)}")
    ordered = {split: splits[split] for split in (*SPLITS, "all") if split in splits}
    return Source(root, "coco", ordered, classes, False, notes)


def _files_by_split(root: Path) -> dict[str, Path]:
    by_split: dict[str, Path] = {}
    for folder in _folders(root):
        for path in _json_files(folder):
            if not _is_coco(path):
                continue
            split = _split_of(root, path)
            if split in by_split:
                raise InputError(
                    f"{path}: is a second file for {split}, beside {by_split[split].name}: keep one"
                )
            by_split[split] = path
    if "all" in by_split and len(by_split) > 1:
        raise InputError(
            f"{by_split['all']}: its name contains no split, but other files do: put train, val or "
            "test into its name, or remove it"
        )
    return by_split


def _split_of(root: Path, path: Path) -> str:
    beside_images = (s for s, folder in split_folders(root).items() if folder == path.parent)
    found = _SPLIT_WORD.search(path.stem.casefold())
    return next(beside_images, found[1] if found else "all")


def _categories(path: Path, content: Any) -> dict[int, str]:
    """The category names of a file by id, sorted by id, without unused groups of categories."""
    names: dict[int, str] = {}
    for entry in json_yaml.field(path, content, "categories", list, "categories"):
        key = json_yaml.field(path, entry, "id", int, "a category")
        name = normalize_name(json_yaml.field(path, entry, "name", str, f"category {key}"))
        if names.setdefault(key, name) != name:
            raise InputError(
                f"{path}: category {key} is both {names[key]!r} and {name!r}: give each its own id"
            )
    annotations = json_yaml.field(path, content, "annotations", list, "annotations")
    found = (entry.get("category_id") for entry in annotations if isinstance(entry, dict))
    used = {key for key in found if isinstance(key, int)}
    groups = _groups(content)
    kept: dict[int, str] = {}
    for name in names.values():
        keys = sorted(key for key, other in names.items() if other == name)
        used_keys = [key for key in keys if key in used]
        if len(used_keys) > 1:
            raise InputError(
                f"{path}: categories {used_keys[0]} and {used_keys[1]} are both named {name!r}: "
                "rename one, or give their annotations the same category_id"
            )
        kept |= dict.fromkeys(used_keys or ([] if name in groups else keys[:1]), name)
    return dict(sorted(kept.items()))


def _groups(content: Any) -> set[str]:
    """Names of categories that group others, as the first one of Roboflow's exports does."""
    entries = [entry for entry in content["categories"] if isinstance(entry, dict)]
    names = [(entry.get("supercategory"), entry.get("name")) for entry in entries]
    return {
        normalize_name(group) for group, name in names if isinstance(group, str) and group != name
    }


def _ordered_names(names_of: dict[Path, dict[int, str]]) -> list[str]:
    """The category names of all files, by id. An id must have one name."""
    first: dict[int, tuple[str, Path]] = {}
    for path, names in names_of.items():
        for key, name in names.items():
            other, other_path = first.setdefault(key, (name, path))
            if other != name:
                raise InputError(
                    f"{path}: category {key} is {name!r} here but {other!r} in {other_path}: "
                    "export the files together"
                )
    return list(dict.fromkeys(name for _, (name, _) in sorted(first.items())))


def _samples(
    images: FileResolver,
    split: str,
    path: Path,
    content: Any,
    values: dict[int, int],
    report: _Report,
) -> list[Sample]:
    entries = json_yaml.field(path, content, "images", list, "images")
    if not entries:
        report.problems.append(f"{path}: lists no images: export it again")
    names: dict[int | str, str] = {}
    samples = []
    sizes: dict[int | str, tuple[int, int] | None] = {}
    for entry in entries:
        key = json_yaml.field(path, entry, "id", (int, str), "an image")
        name = json_yaml.field(path, entry, "file_name", str, f"image {key!r}")
        if names.setdefault(key, name) != name:
            report.problems.append(
                f"{path}: image id {key!r} belongs to {names[key]} and to {name}, so that its "
                "annotations may be those of either: give each image its own id"
            )
        sizes[key] = json_yaml.image_size(entry, "height", "width")
    regions = _regions(path, content, names, values, report)
    claims = Claims()
    near = _image_folders(images.root, path, split)
    for key, name in names.items():
        with collect_errors(report.problems):
            with error_context(path):
                file = images.find(name, *near)
            claims.add(file, f"image id {key!r} of {path}")
            own = tuple(regions.get(key, ()))
            report.images += 1
            report.empty += not own
            mask = RegionMask(path, name, own, size=sizes[key], by_area=True)
            samples.append(Sample(sample_name(images.root, file), file, mask))
    return samples


def _image_folders(root: Path, path: Path, split: str) -> tuple[list[Path], ...]:
    """The folders that the images of an annotation file are expected in, by preference."""
    name = path.stem.removeprefix("instances_")
    present = folders_in(root)
    images = present.get("images", root / "images")
    of_split = [images / name, root / name]
    of_split += [
        split_folders(folder)[split] for folder in (images, root) if split in split_folders(folder)
    ]
    of_images = [present[name] for name in (*IMAGE_FOLDERS, "data") if name in present]
    return list(dict.fromkeys(of_split)), [path.parent], [root, *of_images]


def _regions(
    path: Path, content: Any, known: dict[int | str, str], values: dict[int, int], report: _Report
) -> dict[Any, list[Region]]:
    """The annotated regions by image id."""
    regions: dict[Any, list[Region]] = {}
    boxes: list[Any] = []
    for entry in json_yaml.field(path, content, "annotations", list, "annotations"):
        key = entry.get("id") if isinstance(entry, dict) else entry
        image = json_yaml.field(path, entry, "image_id", (int, str), f"annotation {key!r}")
        category = json_yaml.field(path, entry, "category_id", int, f"annotation {key!r}")
        if image not in known or category not in values:
            what = f"image {image!r}" if image not in known else f"category {category}"
            report.problems.append(
                f"{path}: annotation {key!r} refers to {what}, which the file does not list: "
                "remove it"
            )
        elif not entry.get("segmentation"):
            boxes.append(key)
        else:
            where = f"{path}: annotation {key!r}"
            with collect_errors(report.problems), error_context(where):
                region = _region(entry["segmentation"], values[category])
                report.crowds += bool(entry.get("iscrowd"))
                regions.setdefault(image, []).append(region)
    if boxes:
        report.problems.append(
            f"{path}: annotations have a box but no polygon ({len(boxes)}: id {listed(boxes)}): "
            "add polygons, or remove the annotations"
        )
    return regions


def _region(stored: Any, value: int) -> Region:
    """Parse `segmentation`: a list of flat polygons, or RLE as {"size", "counts"}."""
    if isinstance(stored, list):
        if any(isinstance(number, int | float) for number in stored):
            raise InputError(
                "its segmentation is a list of numbers: write a list of polygons, each a list of "
                "numbers, [[x1, y1, x2, y2, ...]]"
            )
        return Polygons(value, tuple(as_ring(ring) for ring in stored))
    size = whole_numbers(stored.get("size")) if isinstance(stored, dict) else None
    counts = stored.get("counts") if isinstance(stored, dict) else None
    rle = counts if isinstance(counts, str) else whole_numbers(counts)
    if size is None or len(size) != 2 or rle is None:
        raise InputError("its segmentation is neither polygons nor RLE: export the file again")
    return CocoRLE(value, rle, (size[0], size[1]))
