"""Dataset layouts: each one recognizes a folder structure and lists its images and masks.

A layout is one module in this package and one entry in `LAYOUTS`. To add a layout:

1. Write a module with three names. `DESCRIPTION` is a noun phrase for users: the format's name, a
   colon, and the files that identify it. `detect(root)` returns whether a folder has this layout.
   It reads file names and the start of a few files only, and no two layouts may detect the same
   folder. `read(root)` returns a `Source` with the samples of each split, without opening images or
   masks; its `layout` is the module's name with hyphens. It passes faults to
   `errors.raise_problems`, one line each: `{file}: {what is wrong}: {remedy}`. A class table that
   the format defines can be a file beside the module, in one of the formats of `class_tables` (see
   `camvid` and `cityscapes`).
2. Import the module below and add it to `LAYOUTS`.
3. Add a function to `MINIATURES` in tests/miniatures.py that writes a tiny dataset of the layout
   and returns the expected masks. tests/test_formats.py detects, reads, converts and trains on it.
   Add the layout to `OUTCOMES` in tests/test_label_kinds.py.

A mask that is not an image file implements `MaskSource` (see `sbd`, `class_masks` and `coco`).
Shared helpers: `pairing`, `listed_pairs`, `split_lists`, `folder_names`, `folder_pairs`,
`layout_classes` and `error_handling`. Folders are listed by `data.folder_listing` alone, and the
files that annotations name are found by `data.file_resolver` alone.
"""

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
from pixelwise.data.polygons import RegionMask
from pixelwise.data.source import Sample, Source
from pixelwise.errors import Fault, InputError, raise_problems

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
"""All layouts, in the order in which they are tried."""


def read(root: Path) -> Source:
    """Detect the layout of a dataset folder and list its images and masks.

    Args:
        root: Folder of the dataset.

    Returns:
        The samples of each split, with the classes if the layout defines them.

    Raises:
        InputError: If the folder does not exist, no layout matches, a file has no partner, or an
            image is in two splits.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise InputError(f"{root}: {what}: give the folder that holds the images and masks")
    for layout in LAYOUTS:
        if layout.detect(root):
            return _check_unique(layout.read(root))
    if folders.is_incomplete(root):
        return _check_unique(folders.read(root))
    names = ", ".join(layout.DESCRIPTION.partition(":")[0] for layout in LAYOUTS[:-1])
    raise InputError(
        f"{root}: no images and masks found in a known layout: use images/ and masks/ with files "
        f"of the same names, or a dataset as published ({names})"
    )


def _check_unique(source: Source) -> Source:
    """Return `source` if every name, image and mask file belongs to one sample of one split."""
    problems: list[str] = []
    first: dict[str, tuple[str, Sample]] = {}
    image_of: dict[Path, Path] = {}
    for split, samples in source.splits.items():
        for sample in samples:
            other_split, other = first.setdefault(sample.name, (split, sample))
            if other is sample:
                continue
            if other.image != sample.image:
                text = f"has the same name as {other.image.name}: rename one of them and its mask"
                problems.append(Fault("duplicate-stem", sample.image, text))
            elif split == other_split:
                text = f"is listed twice in {split}: remove one of its entries"
                problems.append(Fault("duplicate-stem", sample.image, text))
            else:
                text = f"is in {other_split} and in {split}: keep it in one split"
                problems.append(Fault("in-two-splits", sample.image, text))
    raise_problems(problems)
    for sample in (sample for samples in source.splits.values() for sample in samples):
        if not isinstance(sample.mask, RegionMask):  # a file of regions describes many images
            image = image_of.setdefault(sample.mask.path, sample.image)
            if image != sample.image:
                text = f"is the mask of {image} and of {sample.image}: keep one of the images"
                problems.append(Fault("duplicate-stem", sample.mask.path, text))
    raise_problems(problems)
    return source
