"""Pairs images with masks by name, and says which of them has no partner."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pixelwise.data.array_files import ARRAY_SUFFIXES, ArrayFile
from pixelwise.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIXES, list_images
from pixelwise.data.source import MaskFile, MaskSource, Sample
from pixelwise.errors import Fault, InputError, refuse

# A JPEG mask is found, so that it can be refused.
MASK_LIKE = MASK_SUFFIXES | ARRAY_SUFFIXES | {".jpg", ".jpeg"}
_OTHER_IMAGES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".jp2", ".svg", ".dng", ".npz", ".psd", ".exr"}
)


def mask_source(path: Path) -> MaskSource:
    """The reader of a mask's file: an image, or an array."""
    return ArrayFile(path) if path.suffix.lower() in ARRAY_SUFFIXES else MaskFile(path)


def pair(
    root: Path,
    images: Path,
    masks: Path,
    *,
    notes: list[str],
    image_ending: str = "",
    mask_ending: str = "",
) -> list[Sample]:
    """The samples of one split: `images/NAME.jpg` with `masks/NAME.png`.

    image_ending, mask_ending: what follows NAME, as in `NAME_mask.png`. With a mask_ending both may
        be one folder; what does not end so in it is an image.

    Files that are not images are named in `notes`. Raises InputError with a line for each image
    without a mask, mask without an image, name that two images share, image of a format that is
    not read, and for a folder that is absent or empty.
    """
    for folder, what in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            raise InputError(
                Fault("empty-split", folder, f"is not there: the {what} of this split belong there")
            )
    if images == masks:
        problems = _foreign(images, IMAGE_SUFFIXES | MASK_LIKE, notes)
    else:
        problems = _foreign(images, IMAGE_SUFFIXES, notes) + _foreign(masks, MASK_LIKE, notes)
    image_of: dict[str, Path] = {}
    for path in list_images(images, IMAGE_SUFFIXES):
        if images == masks and path.stem.endswith(mask_ending):
            continue
        key = path.stem.removesuffix(image_ending)
        if key in image_of:
            problems.append(
                Fault(
                    "duplicate-stem",
                    path,
                    f"has the same name as {image_of[key].name}: rename one and its mask",
                )
            )
        image_of.setdefault(key, path)
    mask_of: dict[str, Path] = {}
    for path in list_images(masks, MASK_LIKE):
        if images == masks and not path.stem.endswith(mask_ending):
            continue
        key = path.stem.removesuffix(mask_ending)
        if key in mask_of:
            problems.append(
                Fault(
                    "duplicate-stem",
                    path,
                    f"has the same name as {mask_of[key].name}: keep one mask an image",
                )
            )
        mask_of.setdefault(key, path)
    if not image_of and not problems:
        allowed = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(
            Fault("empty-split", images, f"no images in it: put images there ({allowed})")
        )
    problems += [
        Fault(
            "image-without-mask",
            path,
            f"has no mask: expected {masks / (key + mask_ending + '.png')}, or remove the image",
        )
        for key, path in image_of.items()
        if key not in mask_of
    ]
    problems += [
        Fault(
            "mask-without-image",
            path,
            f"has no image: expected {images / (key + image_ending)}.jpg or .png, or remove the "
            "mask",
        )
        for key, path in mask_of.items()
        if key not in image_of
    ]
    refuse(problems)
    return [
        Sample(sample_name(root, path), path, mask_source(mask_of[key]))
        for key, path in image_of.items()
        if key in mask_of
    ]


def pair_splits(
    root: Path, parts: Iterable[tuple[str, Path, Path]], *, notes: list[str], mask_ending: str = ""
) -> dict[str, list[Sample]]:
    """`pair` for each (split, images, masks); parts of one split are joined.

    Raises InputError with the faults of all parts.
    """
    problems: list[str] = []
    splits: dict[str, list[Sample]] = {}
    for split, images, masks in parts:
        try:
            samples = pair(root, images, masks, notes=notes, mask_ending=mask_ending)
        except InputError as error:
            problems += error.problems
        else:
            splits.setdefault(split, []).extend(samples)
    refuse(problems)
    return splits


def sample_name(root: Path, image: Path) -> str:
    """The image's path below `root`, without its suffix, with forward slashes."""
    bare = image.with_suffix("")
    return (bare.relative_to(root) if bare.is_relative_to(root) else bare).as_posix()


def _foreign(folder: Path, suffixes: frozenset[str], notes: list[str]) -> list[str]:
    """Problems for images that are not read; other files and folders go into `notes`."""
    rest = [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        and not (path.is_file() and path.suffix.lower() in suffixes)
    ]
    pictures = [p for p in rest if p.suffix.lower() in _OTHER_IMAGES | IMAGE_SUFFIXES]
    others = [path.name for path in rest if path not in pictures]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        notes.append(f"left out, not an image: {folder / others[0]}{more}")
    allowed = ", ".join(sorted(suffixes - {".jpg", ".jpeg"} if suffixes == MASK_LIKE else suffixes))
    return [
        Fault(
            "foreign-format",
            path,
            f"is of a format that is not read here (allowed are {allowed}): convert it or remove "
            "it",
        )
        for path in pictures
    ]
