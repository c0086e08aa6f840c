"""Pairs of an image folder and a mask folder under common names, by split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pixelwise.data.layouts.folder_names import first_names, folders_in, has_images, split_folders
from pixelwise.data.layouts.pairing import MASK_LIKE
from pixelwise.data.source import SPLITS

IMAGE_FOLDERS = ("images", "imgs", "img", "image", "jpegimages", "photos")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "gt", "segmentationclass")


def folder_pairs(root: Path) -> dict[str, tuple[Path, Path]]:
    """Find separate image and mask folders, with the splits inside them or around them.

    Returns:
        (image folder, mask folder) by split, or under `all` if there are no splits.
    """
    images, masks = _image_and_mask_folder(root)
    if images is not None and masks is not None:
        image_splits, mask_splits = split_folders(images), split_folders(masks)
        named = [split for split in SPLITS if split in image_splits or split in mask_splits]
        if not named:
            return {"all": (images, masks)}
        return {s: (image_splits.get(s, images / s), mask_splits.get(s, masks / s)) for s in named}
    pairs = {}
    for split, folder in split_folders(root).items():
        images, masks = _image_and_mask_folder(folder)
        if images is not None and masks is not None:
            pairs[split] = (images, masks)
    return pairs


def _image_and_mask_folder(root: Path) -> tuple[Path | None, Path | None]:
    return _find(root, IMAGE_FOLDERS, has_images), _find(root, MASK_FOLDERS, has_masks)


def _find(root: Path, names: tuple[str, ...], has_files: Callable[[Path], bool]) -> Path | None:
    """The first folder of `root` with one of these names; one with files is preferred."""
    present = folders_in(root)
    folders = [present[name] for name in names if name in present]
    filled = [f for f in folders if any(has_files(x) for x in (f, *split_folders(f).values()))]
    return next(iter(filled or folders), None)


def has_masks(folder: Path) -> bool:
    return bool(first_names(folder, MASK_LIKE))
