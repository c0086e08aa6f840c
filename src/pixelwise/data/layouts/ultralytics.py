"""Ultralytics' semantic format: data.yaml, images/SPLIT/, masks/SPLIT/ of class indices, 255 void.

https://docs.ultralytics.com/datasets/semantic
"""

from __future__ import annotations

from pathlib import Path

from pixelwise.data import json_yaml
from pixelwise.data.class_tables import find_table
from pixelwise.data.layouts.folder_names import data_yaml, first_names, split_folders
from pixelwise.data.layouts.layout_classes import make_table
from pixelwise.data.layouts.pairing import MASK_LIKE, pair_splits
from pixelwise.data.layouts.yolo import class_names
from pixelwise.data.source import Source
from pixelwise.errors import InputError

DESCRIPTION = "Ultralytics semantic masks: data.yaml with names, images/SPLIT/ and masks/SPLIT/"


def detect(root: Path) -> bool:
    masks = root / "masks"
    return data_yaml(root) is not None and any(
        first_names(folder, MASK_LIKE) for folder in (masks, *split_folders(masks).values())
    )


def read(root: Path) -> Source:
    path = data_yaml(root)
    assert path is not None  # guaranteed by detect
    names = class_names(path)
    masks_dir = json_yaml.read_yaml(path).get("masks_dir", "masks")
    if not isinstance(masks_dir, str):
        raise InputError(
            f"{path}: masks_dir is {json_yaml.brief(masks_dir)}: give the name of a folder"
        )
    masks = root / masks_dir
    images = split_folders(root / "images") or {"all": root / "images"}
    notes: list[str] = []
    folders = [
        (split, folder, masks if split == "all" else masks / folder.name)
        for split, folder in images.items()
    ]
    splits = pair_splits(root, folders, notes=notes)
    table = find_table(root) or make_table(path, names, ignore=255)
    notes.append(table.note())
    return Source(root, "ultralytics", splits, table.classes, table.has_colors, notes)
