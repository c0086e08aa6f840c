"""COCO JSON (Lin et al. 2014): polygons and RLE, in annotations/ or beside the images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.data import json_yaml
from pixelwise.data.classes import listed
from pixelwise.data.layouts.folder_names import folders_in, split_folders
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.layouts.shape_classes import classes_above_background
from pixelwise.data.polygons import Drawn, Polygons, Region, as_ring
from pixelwise.data.rle import CocoRLE, whole_numbers
from pixelwise.data.source import SPLITS, Sample, Source
from pixelwise.errors import InputError, refuse
from pixelwise.file_io import is_file

DESCRIPTION = "COCO: annotations/instances_SPLIT.json, or _annotations.coco.json beside the images"

_OTHER_TASKS = ("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_")


def detect(root: Path) -> bool:
    return any(_is_coco(path) for path in _candidates(root)[:8])


def _candidates(root: Path) -> list[Path]:
    """JSON files in the places where COCO's lie: few, whatever else is in the folder."""
    places = [root / "annotations", root, *split_folders(root).values()]
    found = []
    for place in places:
        if place.is_dir():
            several = sorted(place.glob("*.json"))[:20]
            found += [path for path in several if not path.name.startswith(_OTHER_TASKS)]
    return found


def _is_coco(path: Path) -> bool:
    keys = json_yaml.top_keys(path)
    # labelme's files have `shapes` or `imageData`, Label Studio's are lists.
    return bool(keys & {"images", "annotations", "categories"}) and not keys & {"[]", "shapes"}


@dataclass
class _Tally:
    """What is said about all files together."""

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
                f"{path}: is for {split}, as {by_split[split].name} is: keep one of them in place"
            )
        by_split[split] = path
    if "all" in by_split and len(by_split) > 1:
        raise InputError(
            f"{by_split['all']}: its name says no split, and there are files of splits beside it: "
            "put train, val or test into its name, or remove it"
        )
    contents = {split: (path, json_yaml.read_json(path)) for split, path in by_split.items()}
    names = _categories(contents)
    classes, value_of = classes_above_background(files[0], list(names.values()))
    values = {key: value_of[name] for key, name in names.items()}
    tally = _Tally()
    splits = {
        split: _samples(root, split, path, content, values, tally)
        for split, (path, content) in contents.items()
    }
    refuse(tally.problems)
    order = [split for split in (*SPLITS, "all") if split in splits]
    notes = [
        f"COCO: {len(classes)} classes, {classes.names[0]} where nothing is drawn; smaller objects "
        "lie on larger ones",
    ]
    if tally.empty:
        notes.append(
            f"{tally.empty} of {tally.images} images have no annotation: all {classes.names[0]}"
        )
    if tally.crowds:
        notes.append(f"{tally.crowds} crowd regions are drawn as their class")
    return Source(root, "coco", {s: splits[s] for s in order}, classes, False, notes)


def _split_of(root: Path, path: Path) -> str:
    if path.parent not in (root, root / "annotations"):  # _annotations.coco.json in its split
        return next(s for s, folder in split_folders(root).items() if folder == path.parent)
    name = path.stem.casefold()
    return next((split for split in SPLITS if split in name), "all")


def _categories(contents: dict[str, tuple[Path, Any]]) -> dict[int, str]:
    """id to name over all files, by rising id."""
    names: dict[int, str] = {}
    for path, content in contents.values():
        for entry in json_yaml.field(path, content, "categories", list, "categories"):
            key = json_yaml.field(path, entry, "id", int, "a category")
            name = json_yaml.field(path, entry, "name", str, f"category {key}")
            if names.setdefault(key, name) != name:
                raise InputError(
                    f"{path}: category {key} is {name!r} here and {names[key]!r} in another split: "
                    "export the splits together"
                )
    return dict(sorted(names.items()))


def _samples(
    root: Path, split: str, path: Path, content: Any, values: dict[int, int], tally: _Tally
) -> list[Sample]:
    images = json_yaml.field(path, content, "images", list, "images")
    annotations = json_yaml.field(path, content, "annotations", list, "annotations")
    regions: dict[Any, list[Region]] = {}
    boxes: list[Any] = []
    known = {json_yaml.field(path, entry, "id", (int, str), "an image") for entry in images}
    for entry in annotations:
        key = entry.get("id") if isinstance(entry, dict) else entry
        image = json_yaml.field(path, entry, "image_id", (int, str), f"annotation {key!r}")
        category = json_yaml.field(path, entry, "category_id", int, f"annotation {key!r}")
        if image not in known or category not in values:
            what = f"image {image!r}" if image not in known else f"category {category}"
            tally.problems.append(
                f"{path}: annotation {key!r} is of {what}, which the file does not list: remove it"
            )
            continue
        if not entry.get("segmentation"):
            boxes.append(key)
            continue
        try:
            region = _region(entry["segmentation"], values[category])
        except InputError as error:
            tally.problems.append(f"{path}: annotation {key!r}: {error}")
            continue
        tally.crowds += bool(entry.get("iscrowd"))
        regions.setdefault(image, []).append(region)
    if boxes:
        tally.problems.append(
            f"{path}: {len(boxes)} annotations have a box and no outline (id {listed(boxes)}): "
            "draw their outlines, or remove them"
        )
    folder = _Folders(root, path, split)
    samples = []
    for entry in images:
        name = json_yaml.field(path, entry, "file_name", str, f"image {entry['id']!r}")
        file = folder.find(name)
        if file is None:
            tally.problems.append(
                f"{path}: image {name} is not in {listed(folder.places)}: put it there, or remove "
                "it from the file"
            )
            continue
        own = tuple(regions.get(entry["id"], ()))
        tally.images += 1
        tally.empty += not own
        stated = None
        if type(entry.get("height")) is int and type(entry.get("width")) is int:
            stated = (entry["height"], entry["width"])
        mask = Drawn(path, name, own, stated=stated, by_area=True)
        samples.append(Sample(sample_name(root, file), file, mask))
    if not images:
        tally.problems.append(f"{path}: lists no images: export it again")
    return samples


class _Folders:
    """Where the images of one file may lie; the place of the last is looked at first."""

    def __init__(self, root: Path, path: Path, split: str) -> None:
        below = folders_in(root / "images")
        named = path.stem.removeprefix("instances_")
        self.places = [
            place
            for place in dict.fromkeys(
                (
                    root / "images" / named,
                    root / named,
                    split_folders(root / "images").get(split, root / "images" / split),
                    split_folders(root).get(split, root / split),
                    root / "images",
                    path.parent,
                    root,
                    *below.values(),
                )
            )
            if place.is_dir()
        ]

    def find(self, name: str) -> Path | None:
        for index, place in enumerate(self.places):
            if is_file(place / name):
                self.places.insert(0, self.places.pop(index))
                return place / name
        return None


def _region(stored: Any, value: int) -> Region:
    """`segmentation`: a list of flat outlines, or {"size", "counts"} with a list or a text."""
    if isinstance(stored, list):
        return Polygons(value, tuple(as_ring(ring) for ring in stored))
    size = whole_numbers(stored.get("size")) if isinstance(stored, dict) else None
    counts = stored.get("counts") if isinstance(stored, dict) else None
    runs = counts if isinstance(counts, str) else whole_numbers(counts)
    if size is None or len(size) != 2 or runs is None:
        raise InputError("its segmentation is neither outlines nor RLE: export the file again")
    return CocoRLE(value, runs, (size[0], size[1]))
