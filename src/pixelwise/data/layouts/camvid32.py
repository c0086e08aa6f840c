"""The original CamVid (Brostow, Fauqueur and Cipolla 2008): RGB masks of 32 classes, NAME_L.png."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pixelwise.data.class_tables import find_table, read_label_colors
from pixelwise.data.classes import UNKNOWN, pack_rgb
from pixelwise.data.layouts.camvid import NAME
from pixelwise.data.layouts.folder_names import folders_in
from pixelwise.data.layouts.layout_classes import masks_in, sampled_masks
from pixelwise.data.layouts.pairing import pair_splits
from pixelwise.data.layouts.split_lists import list_files, split_by_lists
from pixelwise.data.source import SPLITS, Source

DESCRIPTION = (
    "CamVid with 32 classes: 701_StillsRaw_full/ and LabeledApproved_full/, or train/ and "
    "train_labels/, with masks NAME_L.png"
)

_TABLES = ("classes.toml", "class_dict.csv", "label_colors.txt")
_IMAGES = ("701_stillsraw_full", "701_stillsraw", "images")
_MASKS = ("labeledapproved_full", "labeledapproved", "labels")

# label_colors.txt as published; Void is black and ignored.
CLASSES = read_label_colors(Path(__file__).with_suffix(".txt")).classes


def detect(root: Path) -> bool:
    folders = [masks for _, masks in _folders(root).values()]
    masks = [path for folder in folders for path in masks_in(folder) if path.stem.endswith("_L")]
    if not masks:
        return False
    # Other datasets have the same names; their numbers and colors are other classes.
    has_table = any((root / name).is_file() for name in _TABLES)
    return has_table or any(NAME.match(path.name) for path in masks) or _has_its_colors(masks)


def _has_its_colors(paths: list[Path]) -> bool:
    masks = sampled_masks(paths)
    return bool(masks) and all(
        mask.values.ndim == 3
        and (CLASSES.find_colors(np.unique(pack_rgb(mask.values))) != UNKNOWN).all()
        for mask in masks
    )


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """Image and mask folder of each split; `all` if the folder is not split."""
    present = folders_in(root)
    by_split = {
        split: (present.get(split, root / split), present[f"{split}_labels"])
        for split in SPLITS
        if f"{split}_labels" in present
    }
    if by_split:
        return by_split
    images = next((present[name] for name in _IMAGES if name in present), None)
    masks = next((present[name] for name in _MASKS if name in present), None)
    return {} if images is None or masks is None else {"all": (images, masks)}


def read(root: Path) -> Source:
    notes: list[str] = []
    folders = [(split, *pair) for split, pair in _folders(root).items()]
    splits = pair_splits(root, folders, notes=notes, endings=("", "_L"))
    lists = list_files(root)
    if "all" in splits and lists:
        splits = split_by_lists(splits["all"], lists, notes)
    table = find_table(root)
    if table is not None and table.has_colors:
        notes.append(table.note())
        return Source(root, "camvid32", splits, table.classes, True, notes)
    notes.append("original CamVid: 31 classes by color; black is void and ignored")
    return Source(root, "camvid32", splits, CLASSES, True, notes)
