"""One binary mask per class: masks/CLASS/NAME.png or masks/NAME_CLASS.png."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE, Classes, pack_rgb
from pixelwise.data.file_resolver import nfc
from pixelwise.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIXES, list_images
from pixelwise.data.layouts.folder_names import first_names, folders_in
from pixelwise.data.layouts.folder_pairs import folder_pairs
from pixelwise.data.layouts.layout_classes import BACKGROUND, sampled_masks
from pixelwise.data.layouts.pairing import images_below, sample_name
from pixelwise.data.mask_files import MaskReading, read_stored_mask
from pixelwise.data.source import SPLITS, Sample, Source
from pixelwise.errors import Fault, InputError, raise_problems

DESCRIPTION = "one mask per class: masks/CLASS/NAME.png or masks/NAME_CLASS.png"

_SEPARATORS = "_-."
_SAMPLES = 3
"""Number of masks whose values are counted."""


@dataclass(frozen=True)
class ClassMasks:
    """The masks of one image, one per class; implements `MaskSource`.

    Attributes:
        path: The first mask, for messages.
        files: Value and mask file of each class that has one.
        uncovered: Value of the pixels that no mask covers.
    """

    path: Path
    files: tuple[tuple[int, Path], ...]
    uncovered: int

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        mask: NDArray[np.uint8] | None = None
        for value, path in self.files:
            inside = _read_binary(path)
            if mask is None:
                mask = np.full(inside.shape, self.uncovered, dtype=np.uint8)
                covered = np.zeros(inside.shape, dtype=bool)
            if inside.shape != mask.shape:
                raise InputError(
                    f"{path}: is {inside.shape[1]}x{inside.shape[0]} but {self.path.name} is "
                    f"{mask.shape[1]}x{mask.shape[0]}: give all masks of an image the same size"
                )
            overlap = np.argwhere(covered & inside)
            if len(overlap):
                row, column = overlap[0].tolist()
                raise InputError(
                    f"{path}: overlaps the mask of another class at row {row}, column {column} "
                    f"({len(overlap)} pixels in total): assign each pixel to one class"
                )
            covered |= inside
            mask[inside] = value
        assert mask is not None
        return mask


def _read_binary(path: Path) -> NDArray[np.bool_]:
    """Read a black and white mask as (H, W), True where it is white."""
    gray = read_stored_mask(path).read_by(MaskReading.COLORS, path).max(axis=2)
    values = np.unique(gray)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise InputError(
            f"{path}: contains {len(values)} values from {values[0]} to {values[-1]}: use 0 "
            "outside the class and one other value inside"
        )
    return np.asarray(gray > 0)


def detect(root: Path) -> bool:
    found = (_masks_by_image(*pair) for pair in folder_pairs(root).values())
    return any(masks and not _hold_classes(masks) for masks in found)


def _hold_classes(masks: dict[str, dict[str, Path]]) -> bool:
    """Whether a few of the masks all hold several classes, so that their folder is not a class."""
    files = [path for by_class in masks.values() for path in by_class.values()]
    stored = [mask.values for mask in sampled_masks(files, _SAMPLES)]
    counts = [len(np.unique(pack_rgb(m) if m.ndim == 3 else m)) for m in stored]
    return min(counts, default=0) > 2


def _masks_by_image(images: Path, masks: Path) -> dict[str, dict[str, Path]]:
    """Mask of each class by image stem; empty if the folders do not have this layout.

    Masks in class folders may have no image: `read` reports them.
    """
    stems = {nfc(Path(name).stem) for name in first_names(images, IMAGE_SUFFIXES, limit=None)}
    if not stems or not masks.is_dir():
        return {}
    by_image: dict[str, dict[str, Path]] = {}
    class_folders = [path for name, path in sorted(folders_in(masks).items()) if name not in SPLITS]
    names = first_names(masks, MASK_SUFFIXES, limit=None)
    if class_folders and not names:
        for folder in class_folders:
            for path in list_images(folder, MASK_SUFFIXES):
                _add(by_image.setdefault(nfc(path.stem), {}), folder.name, path)
        return by_image if stems & by_image.keys() else {}
    for name in names:
        stem = nfc(Path(name).stem)
        cut = next((i for i in range(len(stem)) if _splits_at(stem, i, stems)), None)
        if cut is None:
            return {}
        _add(by_image.setdefault(stem[:cut], {}), stem[cut + 1 :], masks / name)
    return by_image if any(len(by_class) > 1 for by_class in by_image.values()) else {}


def _add(by_class: dict[str, Path], name: str, path: Path) -> None:
    first = by_class.setdefault(name, path)
    if first is not path:
        text = f"has the same name as {first.name}: keep one mask per image and class"
        raise InputError(Fault("duplicate-stem", path, text))


def _splits_at(stem: str, index: int, stems: set[str]) -> bool:
    """Whether a mask's stem is an image's stem, a separator at `index`, and a class name."""
    return stem[index] in _SEPARATORS and stem[:index] in stems and index + 1 < len(stem)


def read(root: Path) -> Source:
    problems: list[str] = []
    pairs = folder_pairs(root)
    masks_of = {split: _masks_by_image(*pair) for split, pair in pairs.items()}
    names = sorted(
        {name for masks in masks_of.values() for by_class in masks.values() for name in by_class}
    )
    background = next((name for name in names if name.casefold() == BACKGROUND), None)
    if background is None:
        classes, uncovered = Classes.make([BACKGROUND, *names]), 0
    else:
        names.remove(background)
        classes, uncovered = Classes.make([background, *names], ignore=IGNORE), IGNORE
    value_of = {name: value for value, name in enumerate(classes.names)}
    splits: dict[str, list[Sample]] = {}
    for split, (images, _) in pairs.items():
        for image in list_images(images):
            masks = masks_of[split].get(nfc(image.stem))
            if masks is None:
                text = "has no mask of any class: add one, or remove the image"
                problems.append(Fault("image-without-mask", image, text))
                continue
            files = tuple((value_of[name], path) for name, path in sorted(masks.items()))
            mask = ClassMasks(files[0][1], files, uncovered)
            splits.setdefault(split, []).append(Sample(sample_name(root, image), image, mask))
        problems += images_below(images)
        problems += _without_image(images, masks_of[split])
    raise_problems(problems)
    meaning = "background" if background is None else "ignored"
    notes = [f"one mask per class: {len(classes)} classes; uncovered pixels are {meaning}"]
    return Source(root, "class-masks", splits, classes, False, notes)


def _without_image(images: Path, masks: dict[str, dict[str, Path]]) -> list[str]:
    stems = {nfc(image.stem) for image in list_images(images)}
    return [
        Fault(
            "mask-without-image",
            path,
            f"has no image: add {images / path.stem}.jpg or .png, or remove the mask",
        )
        for stem, by_class in masks.items()
        if stem not in stems
        for path in by_class.values()
    ]
