"""COCO JSON (Lin et al. 2014): polygons and RLE, in annotations/ or beside the images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.data import json_yaml
from pixelwise.data.classes import listed
from pixelwise.data.layouts.error_handling import collect_errors, error_context
from pixelwise.data.layouts.folder_names import folders_in, split_folders
from pixelwise.data.layouts.layout_classes import classes_above_background
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.polygons import Polygons, Region, RegionMask, as_ring
from pixelwise.data.rle import CocoRLE, whole_numbers
from pixelwise.data.source import SPLITS, Sample, Source
from pixelwise.errors import InputError, raise_problems
from pixelwise.file_io import is_file

DESCRIPTION = "COCO: annotations/instances_SPLIT.json, or _annotations.coco.json beside the images"

_OTHER_TASKS = ("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_")


def detect(root: Path) -> bool:
    return any(_is_coco(path) for path in _candidates(root)[:8])


def _candidates(root: Path) -> list[Path]:
    """JSON files in the folders where COCO annotations are expected, at most 20 per folder."""
    return [
        path
        for folder in (root / "annotations", root, *split_folders(root).values())
        if folder.is_dir()
        for path in sorted(folder.glob("*.json"))[:20]
        if not path.name.startswith(_OTHER_TASKS)
    ]


def _is_coco(path: Path) -> bool:
    keys = json_yaml.top_keys(path)
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
    files = [path for path in _candidates(root) if _is_coco(path)]
    by_split: dict[str, Path] = {}
    for path in files:
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
    contents = {split: (path, json_yaml.read_json(path)) for split, path in by_split.items()}
    names = _categories(contents)
    classes, value_of = classes_above_background(files[0], list(names.values()))
    values = {category: value_of[name] for category, name in names.items()}
    report = _Report()
    splits = {
        split: _samples(root, split, path, content, values, report)
        for split, (path, content) in contents.items()
    }
    raise_problems(report.problems)
    background = classes.names[0]
    notes = [
        f"COCO: {len(classes)} classes; pixels without an annotation are {background}; smaller "
        "objects are on top of larger ones",
    ]
    if report.empty:
        empty = f"{report.empty} of {report.images}"
        notes.append(f"images without an annotation (all {background}): {empty}")
    if report.crowds:
        notes.append(f"crowd regions labeled with their class: {report.crowds}")
    ordered = {split: splits[split] for split in (*SPLITS, "all") if split in splits}
    return Source(root, "coco", ordered, classes, False, notes)


def _split_of(root: Path, path: Path) -> str:
    if path.parent not in (root, root / "annotations"):  # _annotations.coco.json in its split
        return next(s for s, folder in split_folders(root).items() if folder == path.parent)
    name = path.stem.casefold()
    return next((split for split in SPLITS if split in name), "all")


def _categories(contents: dict[str, tuple[Path, Any]]) -> dict[int, str]:
    """Category names by id over all files, sorted by id."""
    names: dict[int, str] = {}
    for path, content in contents.values():
        for entry in json_yaml.field(path, content, "categories", list, "categories"):
            key = json_yaml.field(path, entry, "id", int, "a category")
            name = json_yaml.field(path, entry, "name", str, f"category {key}")
            if names.setdefault(key, name) != name:
                raise InputError(
                    f"{path}: category {key} is {name!r} here but {names[key]!r} in another split: "
                    "export the splits together"
                )
    return dict(sorted(names.items()))


def _samples(
    root: Path, split: str, path: Path, content: Any, values: dict[int, int], report: _Report
) -> list[Sample]:
    images = json_yaml.field(path, content, "images", list, "images")
    if not images:
        report.problems.append(f"{path}: lists no images: export it again")
    known = {json_yaml.field(path, entry, "id", (int, str), "an image") for entry in images}
    regions = _regions(path, content, known, values, report)
    folders = _ImageFolders(root, path, split)
    samples = []
    for entry in images:
        name = json_yaml.field(path, entry, "file_name", str, f"image {entry['id']!r}")
        file = folders.find(name)
        if file is None:
            report.problems.append(
                f"{path}: image {name} is not in {listed(folders.paths)}: put it there, or remove "
                "it from the file"
            )
            continue
        own = tuple(regions.get(entry["id"], ()))
        report.images += 1
        report.empty += not own
        height, width = entry.get("height"), entry.get("width")
        size = (height, width) if type(height) is int and type(width) is int else None
        mask = RegionMask(path, name, own, size=size, by_area=True)
        samples.append(Sample(sample_name(root, file), file, mask))
    return samples


def _regions(
    path: Path, content: Any, known: set[Any], values: dict[int, int], report: _Report
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


class _ImageFolders:
    """Folders that may contain the images of an annotation file, the last match first."""

    def __init__(self, root: Path, path: Path, split: str) -> None:
        name = path.stem.removeprefix("instances_")
        images = root / "images"
        candidates = (
            images / name,
            root / name,
            split_folders(images).get(split, images / split),
            split_folders(root).get(split, root / split),
            images,
            path.parent,
            root,
            *folders_in(images).values(),
        )
        self.paths = [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]

    def find(self, name: str) -> Path | None:
        for index, folder in enumerate(self.paths):
            if is_file(folder / name):
                self.paths.insert(0, self.paths.pop(index))
                return folder / name
        return None


def _region(stored: Any, value: int) -> Region:
    """Parse `segmentation`: a list of flat polygons, or RLE as {"size", "counts"}."""
    if isinstance(stored, list):
        return Polygons(value, tuple(as_ring(ring) for ring in stored))
    size = whole_numbers(stored.get("size")) if isinstance(stored, dict) else None
    counts = stored.get("counts") if isinstance(stored, dict) else None
    rle = counts if isinstance(counts, str) else whole_numbers(counts)
    if size is None or len(size) != 2 or rle is None:
        raise InputError("its segmentation is neither polygons nor RLE: export the file again")
    return CocoRLE(value, rle, (size[0], size[1]))
