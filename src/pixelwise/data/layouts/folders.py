"""Images and masks in folders of common names, in one folder with suffixes, or in list files."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import find_table
from pixelwise.data.file_resolver import nfc
from pixelwise.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIXES, list_images
from pixelwise.data.layouts import ade20k, camvid, class_masks
from pixelwise.data.layouts.error_handling import collect_errors
from pixelwise.data.layouts.folder_names import (
    data_yaml,
    first_names,
    folders_in,
    has_images,
    split_folders,
)
from pixelwise.data.layouts.folder_pairs import IMAGE_FOLDERS, MASK_FOLDERS, folder_pairs, has_masks
from pixelwise.data.layouts.pairing import MASK_LIKE, pair
from pixelwise.data.layouts.split_lists import is_pair_list, list_files, read_pair_list
from pixelwise.data.layouts.stated_splits import split_by_image_lists
from pixelwise.data.source import Sample, Source
from pixelwise.errors import Fault, InputError, defer_errors, raise_problems

DESCRIPTION = (
    "image and mask folders: images/ and masks/ (or similar names), optionally with train/, val/ "
    "and test/; or NAME.jpg with NAME_mask.png; or train.txt with an image and a mask per line"
)

MASK_ENDINGS = ("_mask", "_label", "_labels", "_gt", "_seg")
IMAGE_ENDINGS = ("", "_image", "_img", "_sat")

_Splits = dict[str, list[Sample]]


def detect(root: Path) -> bool:
    more_specific = (camvid, ade20k, class_masks)
    if any(layout.detect(root) for layout in more_specific) or data_yaml(root) is not None:
        return False
    if (root / "ImageSets").is_dir() or (root / "labelmap.txt").is_file():
        return False
    if any((folder / "_classes.csv").is_file() for folder in (root, *split_folders(root).values())):
        return False
    if any(is_pair_list(path) for path in list_files(root).values()):
        return True
    pairs = folder_pairs(root) or _shared_folders(root)
    return any(has_masks(masks) for _, masks in pairs.values())


def finds_pairs(root: Path) -> bool:
    """Whether images and masks have the same names, except for the usual endings."""
    if any(is_pair_list(path) for path in list_files(root).values()):
        return True
    pairs = folder_pairs(root) or _shared_folders(root)
    return any(_endings(*pair_of_folders)[1] for pair_of_folders in pairs.values())


def is_incomplete(root: Path) -> bool:
    """Whether `root` has images/ or masks/, so that `read` can report what is missing."""
    return (root / "images").is_dir() or (root / "masks").is_dir()


def is_labelme_export(root: Path) -> bool:
    """Whether the masks are in several folders, as arrays, as PNG, and drawn over the images."""
    others = [root / f"SegmentationClass{kind}" for kind in ("PNG", "Npy", "Visualization")]
    return (root / "class_names.txt").is_file() and any(folder.is_dir() for folder in others)


def _shared_folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """The folder with both NAME.jpg and NAME_mask.png, as a pair, by split (or `all`)."""
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
    if any(is_pair_list(path) for path in lists.values()):
        splits = _read_pair_lists(root, lists, notes)
    else:
        splits = _read_folders(root, lists, notes)
    table = None
    with defer_errors():
        table = find_table(root)
    if table is None:
        return Source(root, "folders", splits, notes=notes)
    notes.append(table.note())
    return Source(root, "folders", splits, table.classes, table.has_colors, notes)


def _read_pair_lists(root: Path, lists: dict[str, Path], notes: list[str]) -> _Splits:
    problems: list[str] = []
    splits: _Splits = {}
    for split, path in lists.items():
        if split == "test" and not is_pair_list(path):
            notes.append(f"test is skipped: {path.name} names no masks")
            continue
        with collect_errors(problems):
            splits[split] = read_pair_list(root, path)
    notes.append("splits from " + ", ".join(lists[split].name for split in splits))
    raise_problems(problems)
    return splits


def _read_folders(root: Path, lists: dict[str, Path], notes: list[str]) -> _Splits:
    pairs = folder_pairs(root) or _shared_folders(root)
    if not pairs:
        raise InputError(_missing_folder(root))
    problems = _images_outside_splits(pairs)
    splits: _Splits = {}
    for split, (images, masks) in pairs.items():
        with collect_errors(problems):
            endings, _ = _endings(images, masks)
            splits[split] = pair(root, images, masks, notes=notes, endings=endings)
    if "all" not in pairs:
        names = (images.relative_to(root).as_posix() for images, _ in pairs.values())
        notes.append("splits from the folders " + ", ".join(names))
    elif lists and not problems:
        splits = split_by_image_lists(root, splits["all"], lists, notes)
    raise_problems(problems)
    return splits


def _missing_folder(root: Path) -> str:
    for name in ("images", "masks"):
        if not (root / name).is_dir():
            return f"{root / name}: does not exist: put the {name} into it"
    return f"{root}: contains no matching images and masks: put them into images/ and masks/"


def _images_outside_splits(pairs: dict[str, tuple[Path, Path]]) -> list[str]:
    """Report images beside the split folders, which would otherwise be skipped silently."""
    if "all" in pairs:
        return []
    split = next(iter(pairs.values()))[0].name
    return [
        Fault("stray-file", path, f"is beside the folder {split}/: move it into a split")
        for parent in {folder.parent: None for folders in pairs.values() for folder in folders}
        if parent.name.casefold() in IMAGE_FOLDERS + MASK_FOLDERS
        for path in list_images(parent)
    ]


def _endings(images: Path, masks: Path) -> tuple[tuple[str, str], int]:
    """The endings after the common name that match the most images and masks, and how many."""
    image_stems = {nfc(Path(name).stem) for name in first_names(images, IMAGE_SUFFIXES, limit=None)}
    mask_stems = {nfc(Path(name).stem) for name in first_names(masks, MASK_LIKE, limit=None)}
    best, most = ("", ""), 0
    for image_ending in IMAGE_ENDINGS:
        for mask_ending in MASK_ENDINGS if images == masks else ("", *MASK_ENDINGS):
            names = {s.removesuffix(mask_ending) for s in mask_stems if s.endswith(mask_ending)}
            matches = sum(
                stem.endswith(image_ending) and stem.removesuffix(image_ending) in names
                for stem in image_stems
            )
            if matches > most:
                best, most = (image_ending, mask_ending), matches
    if images == masks and most == 0:
        ending = next(e for e in MASK_ENDINGS if any(stem.endswith(e) for stem in mask_stems))
        return ("", ending), 0
    return best, most
