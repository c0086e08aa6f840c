"""The folder layouts that are understood. A new one is a file here and a line in LAYOUTS."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.layouts import (
    ade20k,
    camvid,
    camvid32,
    cityscapes,
    class_masks,
    coco,
    coco_stuff,
    cvat,
    folders,
    label_studio,
    labelme,
    roboflow,
    sbd,
    ultralytics,
    voc,
    yolo,
)
from pixelwise.data.source import Source
from pixelwise.errors import Fault, InputError, refuse

LAYOUTS = (
    camvid,
    camvid32,
    cityscapes,
    ade20k,
    voc,
    sbd,
    cvat,
    coco,
    coco_stuff,
    labelme,
    label_studio,
    roboflow,
    ultralytics,
    yolo,
    class_masks,
    folders,
)
"""In the order in which they are tried; each has DESCRIPTION, detect(root) and read(root)."""


def find(root: Path) -> Source:
    """Recognize the layout of `root` and list its pairs.

    Raises InputError where there is no such folder, no layout fits, a file lacks its partner, or an
    image is in two splits.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "is not there"
        raise InputError(f"{root}: {what}: give the folder that holds the images and masks")
    for layout in LAYOUTS:
        if layout.detect(root):
            return _distinct(layout.read(root))
    if folders.half(root):
        return _distinct(folders.read(root))
    others = ", ".join(layout.DESCRIPTION.split(":")[0] for layout in LAYOUTS[:-1])
    raise InputError(
        f"{root}: no images and masks found in a known layout. Known are: images/ and masks/ with "
        f"files of the same names; as their authors lay them out, {others}"
    )


def _distinct(source: Source) -> Source:
    """`source`, if no sample stands in it twice: scores on what was trained on mean nothing."""
    seen: dict[str, str] = {}
    problems = []
    for split, samples in source.splits.items():
        for sample in samples:
            if sample.name in seen:
                problems.append(
                    Fault(
                        "in-two-splits",
                        sample.image,
                        f"is in {seen[sample.name]} and in {split}: leave it in one",
                    )
                )
            seen[sample.name] = split
    refuse(problems)
    return source
