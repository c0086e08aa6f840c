"""Pairs images with masks by name, and says which of them has no partner."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES, list_images
from pixelwise.data.source import MaskFile, Sample
from pixelwise.errors import Fault, InputError, tolerable

_MASK_LIKE = MASK_SUFFIXES | {".jpg", ".jpeg"}  # a JPEG mask is found, so that it can be refused
_OTHER_PICTURES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".jp2", ".svg", ".dng", ".npy", ".npz", ".psd", ".exr"}
)


def pair(root: Path, images: Path, masks: Path, *, notes: list[str]) -> list[Sample]:
    """The samples of one split: `images/NAME.jpg` with `masks/NAME.png`.

    Files that are not pictures are named in `notes`. Raises InputError with a line for each image
    without a mask, mask without an image, name that two images share, picture of a format that is
    not read, and for a folder that is absent or empty.
    """
    for folder, what in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            raise InputError(
                Fault("empty-split", folder, f"is not there: the {what} of this split belong there")
            )
    problems = _foreign(images, IMAGE_SUFFIXES, notes) + _foreign(masks, _MASK_LIKE, notes)
    image_of: dict[str, Path] = {}
    for path in list_images(images, IMAGE_SUFFIXES):
        if path.stem in image_of:
            problems.append(
                Fault(
                    "duplicate-stem",
                    path,
                    f"has the same name as {image_of[path.stem].name}: rename one and its mask",
                )
            )
        image_of.setdefault(path.stem, path)
    mask_of: dict[str, Path] = {}
    for path in list_images(masks, _MASK_LIKE):
        if path.stem in mask_of:
            problems.append(
                Fault(
                    "duplicate-stem",
                    path,
                    f"has the same name as {mask_of[path.stem].name}: keep one mask an image",
                )
            )
        mask_of.setdefault(path.stem, path)
    if not image_of and not problems:
        allowed = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(
            Fault("empty-split", images, f"no images in it: put pictures there ({allowed})")
        )
    problems += [
        Fault(
            "image-without-mask",
            path,
            f"has no mask: expected {masks / (stem + '.png')}, or remove the image",
        )
        for stem, path in image_of.items()
        if stem not in mask_of
    ]
    problems += [
        Fault(
            "mask-without-image",
            path,
            f"has no image: expected {images / stem}.jpg or .png, or remove the mask",
        )
        for stem, path in mask_of.items()
        if stem not in image_of
    ]
    with tolerable():
        if problems:
            raise InputError(*problems)
    return [
        Sample(path.relative_to(root).with_suffix("").as_posix(), path, MaskFile(mask_of[stem]))
        for stem, path in image_of.items()
        if stem in mask_of
    ]


def _foreign(folder: Path, suffixes: frozenset[str], notes: list[str]) -> list[str]:
    """Problems for pictures that are not read; other files and folders go into `notes`."""
    rest = [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        and not (path.is_file() and path.suffix.lower() in suffixes)
    ]
    pictures = [p for p in rest if p.suffix.lower() in _OTHER_PICTURES | IMAGE_SUFFIXES]
    others = [path.name for path in rest if path not in pictures]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        notes.append(f"left out, not a picture: {folder / others[0]}{more}")
    allowed = ", ".join(
        sorted(suffixes - {".jpg", ".jpeg"} if suffixes == _MASK_LIKE else suffixes)
    )
    return [
        Fault(
            "foreign-format",
            path,
            f"is of a format that is not read here (allowed are {allowed}): convert it or "
            "remove it",
        )
        for path in pictures
    ]
