"""Folders of images and of masks under the names that people give them, by split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pixelwise.data.layouts.folder_names import first_names, folders_in, has_images, split_folders
from pixelwise.data.layouts.pairing import MASK_LIKE
from pixelwise.data.source import SPLITS

IMAGE_FOLDERS = ("images", "imgs", "img", "image", "jpegimages", "photos")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "gt", "segmentationclass")


def folder_parts(root: Path) -> dict[str, tuple[Path, Path]]:
    """Split (or `all`) to its folders of images and masks, where these are folders of their own."""
    images = _pick(root, IMAGE_FOLDERS, has_images)
    masks = _pick(root, MASK_FOLDERS, holds_masks)
    if images is not None and masks is not None:
        below, beside = split_folders(images), split_folders(masks)
        named = [split for split in SPLITS if split in below or split in beside]
        if not named:
            return {"all": (images, masks)}
        return {s: (below.get(s, images / s), beside.get(s, masks / s)) for s in named}
    parts = {}
    for split, folder in split_folders(root).items():
        images = _pick(folder, IMAGE_FOLDERS, has_images)
        masks = _pick(folder, MASK_FOLDERS, holds_masks)
        if images is not None and masks is not None:
            parts[split] = (images, masks)
    return parts


def _pick(root: Path, names: tuple[str, ...], holds: Callable[[Path], bool]) -> Path | None:
    """The folder of `root` with one of these names: the first that holds something, else any."""
    present = folders_in(root)
    found = [present[name] for name in names if name in present]
    full = [f for f in found if any(holds(x) for x in (f, *split_folders(f).values()))]
    return next(iter(full or found), None)


def holds_masks(folder: Path) -> bool:
    return bool(first_names(folder, MASK_LIKE))
