"""Folder pairs: images and masks beside each other, in one folder, or named by list files."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import find_table
from pixelwise.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIXES, list_images
from pixelwise.data.layouts import ade20k, camvid, class_masks
from pixelwise.data.layouts.folder_names import (
    data_yaml,
    first_names,
    folders_in,
    has_images,
    split_folders,
)
from pixelwise.data.layouts.folder_pairs import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    folder_parts,
    holds_masks,
)
from pixelwise.data.layouts.pairing import MASK_LIKE, pair
from pixelwise.data.layouts.split_lists import (
    is_pair_list,
    list_files,
    read_pair_list,
    split_by_lists,
)
from pixelwise.data.source import Sample, Source
from pixelwise.errors import Fault, InputError, refuse, tolerable

DESCRIPTION = (
    "images/ and masks/ (or names like them), each plain or with train/, val/, test/ below or "
    "above; NAME.jpg with NAME_mask.png; train.txt with an image and a mask a line"
)

MASK_ENDINGS = ("_mask", "_label", "_labels", "_gt", "_seg")
IMAGE_ENDINGS = ("", "_image", "_img", "_sat")


def detect(root: Path) -> bool:
    others = (camvid, ade20k, class_masks)
    if any(other.detect(root) for other in others) or data_yaml(root) is not None:
        return False  # of a format that says more about its masks
    if (root / "ImageSets").is_dir() or (root / "labelmap.txt").is_file():
        return False
    if any((folder / "_classes.csv").is_file() for folder in (root, *split_folders(root).values())):
        return False
    if any(is_pair_list(path) for path in list_files(root).values()):
        return True
    parts = folder_parts(root) or _suffixed(root)
    return any(holds_masks(masks) for _, masks in parts.values())


def _suffixed(root: Path) -> dict[str, tuple[Path, Path]]:
    """Split (or `all`) to the one folder that holds NAME.jpg and NAME_mask.png, twice."""
    folders = {"all": root} if has_images(root) else split_folders(root)
    images = folders_in(root).get("images")
    if not folders and images is not None:
        folders = {"all": images} if has_images(images) else split_folders(images)
    return {
        split: (folder, folder)
        for split, folder in folders.items()
        if any(
            Path(name).stem.endswith(MASK_ENDINGS) for name in first_names(folder, MASK_SUFFIXES)
        )
    }


def read(root: Path) -> Source:
    notes: list[str] = []
    lists = list_files(root)
    pair_lists = {split: path for split, path in lists.items() if is_pair_list(path)}
    splits: dict[str, list[Sample]] = {}
    problems: list[str] = []
    if pair_lists:
        for split, path in pair_lists.items():
            try:
                splits[split] = read_pair_list(root, path)
            except InputError as error:
                problems += error.problems
        notes.append("splits from " + ", ".join(path.name for path in pair_lists.values()))
    else:
        parts = folder_parts(root) or _suffixed(root)
        if not parts:
            raise InputError(*_half(root))
        problems += _stray(parts)
        for split, (images, masks) in parts.items():
            try:
                image_ending, mask_ending = _endings(images, masks)
                splits[split] = pair(
                    root,
                    images,
                    masks,
                    notes=notes,
                    image_ending=image_ending,
                    mask_ending=mask_ending,
                )
            except InputError as error:
                problems += error.problems
        if "all" in parts and lists and not problems:
            splits = split_by_lists(splits["all"], lists, notes)
        elif "all" not in parts:
            named = (images.relative_to(root).as_posix() for images, _ in parts.values())
            notes.append("splits from the folders " + ", ".join(named))
    refuse(problems)
    table = None
    with tolerable():
        table = find_table(root)
    if table is None:
        return Source(root, "folders", splits, notes=notes)
    notes.append(table.note())
    return Source(root, "folders", splits, table.classes, table.has_colors, notes)


def _half(root: Path) -> list[str]:
    return [
        f"{folder}: is not there: put the {what} into it"
        for folder, what in ((root / "images", "images"), (root / "masks", "masks"))
        if not folder.is_dir()
    ][:1] or [f"{root}: has no images and masks that belong together: put them there"]


def half(root: Path) -> bool:
    """Whether `root` looks like the start of the plain layout, so that `read` can say the rest."""
    return (root / "images").is_dir() or (root / "masks").is_dir()


def _stray(parts: dict[str, tuple[Path, Path]]) -> list[str]:
    """Images beside the folders of the splits, which would be left out in silence."""
    problems: list[str] = []
    for above in {folder.parent: None for pair_ in parts.values() for folder in pair_}:
        beside = "all" not in parts and above.name.casefold() in IMAGE_FOLDERS + MASK_FOLDERS
        first = next(iter(parts.values()))[0].name
        problems += [
            Fault("stray-file", path, f"lies beside the folder {first}/: move it into a split")
            for path in (list_images(above) if beside else [])
        ]
    return problems


def _endings(images: Path, masks: Path) -> tuple[str, str]:
    """What follows the common name in the files of images and of masks: those that fit best."""
    image_stems = {Path(name).stem for name in first_names(images, IMAGE_SUFFIXES, most=None)}
    mask_stems = {Path(name).stem for name in first_names(masks, MASK_LIKE, most=None)}
    best, most = ("", ""), 0
    for image_ending in IMAGE_ENDINGS:
        for mask_ending in MASK_ENDINGS if images == masks else ("", *MASK_ENDINGS):
            named = {s.removesuffix(mask_ending) for s in mask_stems if s.endswith(mask_ending)}
            fits = sum(
                stem.endswith(image_ending) and stem.removesuffix(image_ending) in named
                for stem in image_stems
            )
            if fits > most:
                best, most = (image_ending, mask_ending), fits
    if images == masks and most == 0:
        used = [e for e in MASK_ENDINGS if any(stem.endswith(e) for stem in mask_stems)]
        return "", used[0]
    return best
