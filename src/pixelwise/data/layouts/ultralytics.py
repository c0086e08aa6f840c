"""Ultralytics' semantic format: data.yaml, images/SPLIT/, masks/SPLIT/ of class indices, 255 void.

https://docs.ultralytics.com/datasets/semantic
"""

from __future__ import annotations

from pathlib import Path

from pixelwise.data import json_yaml
from pixelwise.data.class_tables import find_table
from pixelwise.data.classes import Classes
from pixelwise.data.layouts.folder_names import data_yaml, first_names, split_folders
from pixelwise.data.layouts.pairing import MASK_LIKE, pair_splits
from pixelwise.data.layouts.yolo import class_names
from pixelwise.data.source import Source
from pixelwise.errors import InputError

DESCRIPTION = "Ultralytics semantic: data.yaml with names, images/SPLIT/, masks/SPLIT/"


def detect(root: Path) -> bool:
    masks = root / "masks"
    return data_yaml(root) is not None and any(
        first_names(folder, MASK_LIKE) for folder in (masks, *split_folders(masks).values())
    )


def read(root: Path) -> Source:
    path = data_yaml(root)
    assert path is not None  # as detect has found
    names = class_names(path)
    chosen = json_yaml.read_yaml(path).get("masks_dir", "masks")
    if not isinstance(chosen, str):
        raise InputError(f"{path}: masks_dir = {json_yaml.brief(chosen)}: give a folder's name")
    masks = root / chosen
    images = split_folders(root / "images") or {"all": root / "images"}
    notes: list[str] = []
    parts = [
        (split, folder, masks if split == "all" else masks / folder.name)
        for split, folder in images.items()
    ]
    splits = pair_splits(root, parts, notes=notes)
    table = find_table(root)
    if table is not None:
        notes.append(table.note())
        return Source(root, "ultralytics", splits, table.classes, table.has_colors, notes)
    try:
        classes = Classes.make(names, ignore=255)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    notes.append(f"{len(classes)} classes from {path}; 255 is ignored")
    return Source(root, "ultralytics", splits, classes, False, notes)
