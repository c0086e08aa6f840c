"""Pairing of images and masks by file name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pixelwise.data.array_files import ARRAY_SUFFIXES, ArrayFile
from pixelwise.data.file_resolver import nfc
from pixelwise.data.folder_listing import list_entries, list_files, walk_files
from pixelwise.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIXES, list_images
from pixelwise.data.layouts.error_handling import collect_errors
from pixelwise.data.source import MaskFile, MaskSource, Sample
from pixelwise.errors import Fault, InputError, raise_problems

# JPEG masks are listed so that reading them reports why they are refused.
MASK_LIKE = MASK_SUFFIXES | ARRAY_SUFFIXES | {".jpg", ".jpeg", ".jfif"}
_UNSUPPORTED_IMAGES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".jp2", ".svg", ".dng", ".npz", ".psd", ".exr"}
)


def mask_source(path: Path) -> MaskSource:
    """The reader for a mask file: an array or an image."""
    return ArrayFile(path) if path.suffix.lower() in ARRAY_SUFFIXES else MaskFile(path)


def pair(
    root: Path, images: Path, masks: Path, *, notes: list[str], endings: tuple[str, str] = ("", "")
) -> list[Sample]:
    """Pair `images/NAME.jpg` with `masks/NAME.png` for one split.

    Args:
        root: Folder of the dataset, which sample names are relative to.
        images: Folder of the images.
        masks: Folder of the masks. It may be the same as `images`: files with the mask ending are
            masks then, and the others are images.
        notes: Receives a note about files that are not images.
        endings: What follows NAME in the stems of images and of masks, such as `_sat`, `_mask`.

    Returns:
        The samples, by file name.

    Raises:
        InputError: With one line for each image without a mask, mask without an image, name shared
            by two files, and unsupported image format; also if a folder is missing or empty.
    """
    image_ending, mask_ending = endings
    for folder, kind in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            text = f"does not exist: put the {kind} of this split there"
            raise InputError(Fault("empty-split", folder, text))
    image_files = list_images(images, IMAGE_SUFFIXES)
    mask_files = list_images(masks, MASK_LIKE)
    if images == masks:
        problems = _check_other_files(images, IMAGE_SUFFIXES | MASK_LIKE, notes)
        image_files = [path for path in image_files if not path.stem.endswith(mask_ending)]
        mask_files = [path for path in mask_files if path.stem.endswith(mask_ending)]
    else:
        problems = _check_other_files(images, IMAGE_SUFFIXES, notes)
        problems += _check_other_files(masks, MASK_LIKE, notes)
    problems += images_below(images)
    image_of = _by_name(image_files, image_ending, "rename one and its mask", problems)
    mask_of = _by_name(mask_files, mask_ending, "keep one mask per image", problems)
    if not image_of and not problems:
        text = f"contains no images: put images there ({', '.join(sorted(IMAGE_SUFFIXES))})"
        raise InputError(Fault("empty-split", images, text))
    for name, path in image_of.items():
        if name not in mask_of:
            expected = masks / f"{name}{mask_ending}.png"
            text = f"has no mask: add {expected}, or remove the image"
            problems.append(Fault("image-without-mask", path, text))
    for name, path in mask_of.items():
        if name not in image_of:
            expected = images / f"{name}{image_ending}"
            text = f"has no image: add {expected}.jpg or .png, or remove the mask"
            problems.append(Fault("mask-without-image", path, text))
    raise_problems(problems)
    return [
        Sample(sample_name(root, path), path, mask_source(mask_of[name]))
        for name, path in image_of.items()
        if name in mask_of
    ]


def _by_name(files: list[Path], ending: str, remedy: str, problems: list[str]) -> dict[str, Path]:
    """Files by stem in composed Unicode form, without `ending`.

    Adds a problem for each name that two files share.
    """
    by_name: dict[str, Path] = {}
    for path in files:
        first = by_name.setdefault(nfc(path.stem).removesuffix(ending), path)
        if first is not path:
            text = f"has the same name as {first.name}: {remedy}"
            problems.append(Fault("duplicate-stem", path, text))
    return by_name


def pair_splits(
    root: Path,
    folders: Iterable[tuple[str, Path, Path]],
    *,
    notes: list[str],
    endings: tuple[str, str] = ("", ""),
) -> dict[str, list[Sample]]:
    """Call `pair` for each (split, images, masks) and join the samples of equal splits.

    Raises:
        InputError: With the problems of all folders.
    """
    problems: list[str] = []
    splits: dict[str, list[Sample]] = {}
    for split, images, masks in folders:
        with collect_errors(problems):
            samples = pair(root, images, masks, notes=notes, endings=endings)
            splits.setdefault(split, []).extend(samples)
    raise_problems(problems)
    return splits


def sample_name(root: Path, image: Path) -> str:
    """The image's path relative to `root`, without suffix, with forward slashes."""
    bare = image.with_suffix("")
    return (bare.relative_to(root) if bare.is_relative_to(root) else bare).as_posix()


def _check_other_files(folder: Path, suffixes: frozenset[str], notes: list[str]) -> list[str]:
    """Report images of unsupported formats; files and folders that are no images become a note."""
    listed = set(list_files(folder, suffixes))
    rest = [path for path in list_entries(folder) if path not in listed]
    unsupported = [p for p in rest if p.suffix.lower() in _UNSUPPORTED_IMAGES | IMAGE_SUFFIXES]
    others = [path.name for path in rest if path not in unsupported]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        notes.append(f"skipped, not an image: {folder / others[0]}{more}")
    allowed = ", ".join(
        sorted(suffixes - {".jpg", ".jpeg", ".jfif"} if suffixes == MASK_LIKE else suffixes)
    )
    text = f"has an unsupported format (allowed: {allowed}): convert it or remove it"
    is_folder = "is a folder with the name of an image: rename or remove it"
    return [
        Fault("unsupported-format", path, is_folder if path.is_dir() else text)
        for path in unsupported
    ]


def images_below(folder: Path) -> list[str]:
    """Report images in subfolders, which would otherwise be skipped silently."""
    text = f"is in a subfolder of {folder.name}/, which holds images itself: move it beside them"
    return [
        Fault("stray-file", path, text)
        for path in walk_files(folder, IMAGE_SUFFIXES)
        if path.parent != folder
    ]
