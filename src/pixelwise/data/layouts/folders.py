"""The plain layout: images/ and masks/, with or without train/, val/ and test/ below them."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.classes import read_classes_toml, toml_has_colours
from pixelwise.data.images import list_images
from pixelwise.data.layouts.pairing import pair
from pixelwise.data.source import SPLITS, Sample, Source
from pixelwise.errors import Fault, InputError, tolerable

DESCRIPTION = "images/ and masks/, each plain or with train/, val/, test/ below"


def detect(root: Path) -> bool:
    return (root / "images").is_dir() or (root / "masks").is_dir()


def read(root: Path) -> Source:
    images, masks = root / "images", root / "masks"
    for folder, what in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            raise InputError(f"{folder}: is not there: put the {what} into it")
    named = [s for s in SPLITS if (images / s).is_dir() or (masks / s).is_dir()]
    notes: list[str] = []
    splits: dict[str, list[Sample]] = {}
    if named:
        problems: list[str] = [
            Fault("stray-file", path, f"lies beside the folder {named[0]}/: move it into a split")
            for folder in (images, masks)
            for path in list_images(folder)
        ]
        for split in named:
            try:
                splits[split] = pair(root, images / split, masks / split, notes=notes)
            except InputError as error:
                problems += error.problems
        with tolerable():
            if problems:
                raise InputError(*problems)
        notes.append("splits from the folders " + ", ".join(f"images/{s}" for s in named))
    else:
        splits["all"] = pair(root, images, masks, notes=notes)
    classes, rgb_allowed = None, False
    table = root / "classes.toml"
    if table.exists():
        with tolerable():
            classes = read_classes_toml(table)
            rgb_allowed = toml_has_colours(table)
            notes.append(f"{len(classes)} classes from {table}")
    return Source(root, "folders", splits, classes, rgb_allowed, notes)
