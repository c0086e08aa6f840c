"""PASCAL VOC 2007 to 2012, with or without SBD's masks in SegmentationClassAug."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pixelwise.data.class_tables import Table
from pixelwise.data.classes import IGNORE, pack_rgb
from pixelwise.data.folder_listing import list_files
from pixelwise.data.layouts.folder_names import first_names, folders_in
from pixelwise.data.layouts.layout_classes import class_table, masks_in, sampled_masks
from pixelwise.data.layouts.listed_pairs import ListedPairs
from pixelwise.data.layouts.pairing import MASK_LIKE, mask_source
from pixelwise.data.layouts.split_lists import read_entries
from pixelwise.data.source import Sample, Source
from pixelwise.data.voc_palette import VOC_CLASSES, voc_color
from pixelwise.errors import InputError, raise_problems

DESCRIPTION = "PASCAL VOC: JPEGImages/, SegmentationClass/ (or ...Aug), ImageSets/Segmentation/"

_MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
_VOID_COLOR = pack_rgb(np.array(voc_color(IGNORE), dtype=np.uint8))
_COMPARED = 3
"""Number of palette entries that are compared: files may store those in use only."""
_VOC_NAME = re.compile(r"(20\d\d_)?\d{6}\.jpg")
_LISTS = {"train": ("train_aug", "trainaug", "train"), "val": ("val",), "test": ("test",)}


def detect(root: Path) -> bool:
    return any(
        (year / "ImageSets" / "Segmentation").is_dir() and not (year / "labelmap.txt").is_file()
        for year in _years(root)
    )


def _years(root: Path) -> list[Path]:
    """The folders VOC2007, VOC2012, ... in `root` or its VOCdevkit/; `root` if there are none."""
    years = [
        folder
        for parent in (root, root / "VOCdevkit")
        for name, folder in sorted(folders_in(parent).items())
        if name.startswith("voc20")
    ]
    return years or [root]


def read(root: Path) -> Source:
    years = _years(root)
    if len(years) > 1:
        raise InputError(
            f"{root}: contains {' and '.join(year.name for year in years)}: give one of them"
        )
    notes: list[str] = []
    splits = _read_lists(root, years[0], notes)
    table = class_table(years[0], notes)
    if table is None and not _has_voc_classes(years[0]):
        notes.append("the masks are not those of PASCAL VOC: their classes are inferred")
        return Source(root, "voc", splits, notes=notes)
    if table is None:
        table = Table(VOC_CLASSES, True, years[0])
        notes.append("PASCAL VOC: 21 classes; 255 is void and ignored")
    return Source(root, "voc", splits, table.classes, table.has_colors, notes)


def _has_voc_classes(year: Path) -> bool:
    """Whether a dataset without a class table has the classes of VOC.

    Other datasets have the same folders, and labelme gives their masks the same palette. VOC also
    has masks of the objects, its images have numbers as names, and its masks have void borders.
    """
    if year.name.casefold().startswith("voc20") or (year / "SegmentationObject").is_dir():
        return True
    names = first_names(year / "JPEGImages", frozenset({".jpg"}))
    if any(_VOC_NAME.fullmatch(name) for name in names):
        return True
    masks = sampled_masks([path for name in _MASK_FOLDERS for path in masks_in(year / name)])
    colors = np.array(VOC_CLASSES.colors[:_COMPARED])
    return any(
        (pack_rgb(mask.values) == _VOID_COLOR).any()
        if mask.values.ndim == 3
        else mask.palette is not None
        and np.array_equal(mask.palette[:_COMPARED], colors)
        and (mask.values == IGNORE).any()
        for mask in masks
    )


def _read_lists(root: Path, year: Path, notes: list[str]) -> dict[str, list[Sample]]:
    """The samples of ImageSets/Segmentation; a test list without masks is skipped."""
    lists = _choose_lists(year)
    image_folder, mask_folder = year / "JPEGImages", year / "SegmentationClass"
    if (year / "SegmentationClassAug").is_dir():
        mask_folder = year / "SegmentationClassAug"
        notes.append("masks from SegmentationClassAug (VOC and SBD)")
    for folder, kind in ((image_folder, "images"), (mask_folder, "masks")):
        if not folder.is_dir():
            raise InputError(f"{folder}: does not exist: put the {kind} into it")
    pairs = ListedPairs(root, image_folder, mask_folder, MASK_LIKE, mask_source)
    splits: dict[str, list[Sample]] = {}
    for split, path in lists.items():
        entries = read_entries(path)
        if split == "test" and not any(pairs.has_mask(line) for _, line in entries):
            notes.append(f"test is skipped: none of its images has a mask ({len(entries)} listed)")
            continue
        splits[split] = pairs.read(entries, path)
    raise_problems(pairs.problems)
    notes.append("splits from " + ", ".join(path.name for path in lists.values()))
    return splits


def _choose_lists(year: Path) -> dict[str, Path]:
    """The list file of each split. The train list of SBD needs SBD's masks."""
    folder = year / "ImageSets" / "Segmentation"
    present = {path.stem: path for path in list_files(folder, {".txt"})}
    names = dict(_LISTS)
    if "train" in present and not (year / "SegmentationClassAug").is_dir():
        names["train"] = ("train",)
    lists = {
        split: next(present[alias] for alias in aliases if alias in present)
        for split, aliases in names.items()
        if not present.keys().isdisjoint(aliases)
    }
    if lists:
        return lists
    others = [path for name, path in present.items() if name != "trainval"] or [*present.values()]
    if len(others) != 1:
        raise InputError(
            f"{folder}: contains no train.txt and val.txt: write the image names into them, one "
            "per line"
        )
    return {"all": others[0]}
