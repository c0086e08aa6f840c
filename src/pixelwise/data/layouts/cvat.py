"""CVAT's "segmentation mask 1.1": VOC's folders, with the colors of the labels in labelmap.txt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.class_tables import find_table
from pixelwise.data.image_files import list_images, mask_palette, read_mask
from pixelwise.data.layouts.folder_names import folders_in
from pixelwise.data.layouts.pairing import MASK_LIKE, sample_name
from pixelwise.data.layouts.split_lists import read_stems
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError, refuse

DESCRIPTION = "CVAT segmentation mask 1.1: labelmap.txt, SegmentationClass/, ImageSets/, images"

_SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}
_IMAGES = ("jpegimages", "images", "image", "imgs")


@dataclass(frozen=True)
class ColorFile:
    """A mask whose colors say the class, be they in its pixels or in its palette."""

    path: Path

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        stored = read_mask(self.path)
        palette = mask_palette(self.path) if stored.ndim == 2 else None
        if palette is None:
            return stored
        if stored.max(initial=0) >= len(palette):
            raise InputError(
                f"{self.path}: value {stored.max()} has no color in its palette of {len(palette)}:"
                " export the masks again"
            )
        return np.asarray(palette[stored])


def detect(root: Path) -> bool:
    return (root / "labelmap.txt").is_file() and (root / "SegmentationClass").is_dir()


def read(root: Path) -> Source:
    table = find_table(root)  # classes.toml, else labelmap.txt
    assert table is not None
    masks = root / "SegmentationClass"
    mask_of = {path.stem: path for path in list_images(masks, MASK_LIKE)}
    present = folders_in(root)
    images = next((present[name] for name in _IMAGES if name in present), root)
    # Images may lie in folders of their subset; a mask then lies in one of the same name.
    image_of = {
        path.stem: path
        for folder in (images, *folders_in(images).values())
        if folder.name not in {"SegmentationClass", "SegmentationObject", "ImageSets"}
        for path in list_images(folder)
    }
    if not image_of:
        raise InputError(
            f"{images}: has no images: export from CVAT with 'Save images', or put them into "
            f"{root / 'JPEGImages'}"
        )
    splits: dict[str, list[Sample]] = {}
    problems: list[str] = []
    lists = sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))
    listed = [(path.stem, read_stems(path), path) for path in lists]
    for name, stems, path in listed or [("default", sorted(mask_of), masks)]:
        split = _SPLITS.get(name.casefold(), "all")
        for stem in (Path(stem).name for stem in stems):
            if stem not in image_of:
                problems.append(f"{images / stem}.jpg: is not there, but {path} names it")
            elif stem not in mask_of:
                problems.append(f"{masks / (stem + '.png')}: is not there, but {path} names it")
            else:
                image = image_of[stem]
                sample = Sample(sample_name(root, image), image, ColorFile(mask_of[stem]))
                splits.setdefault(split, []).append(sample)
    if "all" in splits and len(splits) > 1:
        problems.append(
            f"{lists[0].parent}: lists of other names beside train.txt, val.txt and test.txt: "
            "rename or remove them"
        )
    refuse(problems)
    return Source(root, "cvat", splits, table.classes, table.has_colors, [table.note()])
