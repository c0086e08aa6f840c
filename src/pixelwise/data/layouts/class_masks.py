"""A mask a class: masks/CLASS/NAME.png, or masks/NAME_CLASS.png, white where the class is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE, Classes
from pixelwise.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIXES, list_images, read_mask
from pixelwise.data.layouts.folder_names import first_names, folders_in
from pixelwise.data.layouts.folder_pairs import folder_parts
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.source import SPLITS, Sample, Source
from pixelwise.errors import Fault, InputError, refuse

DESCRIPTION = "a mask a class: masks/CLASS/NAME.png or masks/NAME_CLASS.png"

BACKGROUND = "background"
_SEPARATORS = "_-."


@dataclass(frozen=True)
class ClassMasks:
    """One image's masks, one a class: see `MaskSource`.

    path: the first of them, for messages. files: value and file of each class that has one.
    rest: the value where none of them is.
    """

    path: Path
    files: tuple[tuple[int, Path], ...]
    rest: int

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        mask: NDArray[np.uint8] | None = None
        for value, path in self.files:
            inside = _inside(path)
            if mask is None:
                mask = np.full(inside.shape, self.rest, dtype=np.uint8)
                taken = np.zeros(inside.shape, dtype=bool)
            if inside.shape != mask.shape:
                raise InputError(
                    f"{path}: is {inside.shape[1]}x{inside.shape[0]} and {self.path.name} "
                    f"{mask.shape[1]}x{mask.shape[0]}: make the masks of an image the same size"
                )
            twice = np.argwhere(taken & inside)
            if len(twice):
                row, column = (int(place) for place in twice[0])
                raise InputError(
                    f"{path}: overlaps another class's mask of this image at row {row}, column "
                    f"{column}, {len(twice)} pixels in all: each pixel is of one class"
                )
            taken |= inside
            mask[inside] = value
        assert mask is not None
        return mask


def _inside(path: Path) -> NDArray[np.bool_]:
    """Where a mask of black and white is white, (H, W)."""
    stored = read_mask(path)
    gray = stored if stored.ndim == 2 else stored.max(axis=2)
    values = np.unique(gray)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise InputError(
            f"{path}: holds {len(values)} values, {values[0]} to {values[-1]}: a class's mask is 0 "
            "outside and one other value inside"
        )
    return np.asarray(gray > 0)


def detect(root: Path) -> bool:
    return any(_by_image(*parts) for parts in folder_parts(root).values())


def _by_image(images: Path, masks: Path) -> dict[str, dict[str, Path]]:
    """Image's stem to its masks by class; empty where the folders are not of this layout."""
    stems = {Path(name).stem for name in first_names(images, IMAGE_SUFFIXES, most=None)}
    if not stems or not masks.is_dir():
        return {}
    found: dict[str, dict[str, Path]] = {}
    below = [path for name, path in sorted(folders_in(masks).items()) if name not in SPLITS]
    names = first_names(masks, MASK_SUFFIXES, most=None)
    if below and not names:
        for folder in below:
            for path in list_images(folder, MASK_SUFFIXES):
                if path.stem in stems:
                    found.setdefault(path.stem, {})[folder.name] = path
        return found
    for name in names:
        stem = Path(name).stem
        cut = next((i for i in range(len(stem)) if _cuts(stem, i, stems)), None)
        if cut is None:
            return {}
        found.setdefault(stem[:cut], {})[stem[cut + 1 :]] = masks / name
    return found if any(len(of_image) > 1 for of_image in found.values()) else {}


def _cuts(stem: str, place: int, stems: set[str]) -> bool:
    return stem[place] in _SEPARATORS and stem[:place] in stems and place + 1 < len(stem)


def read(root: Path) -> Source:
    problems: list[str] = []
    parts = folder_parts(root)
    found = {split: _by_image(*folders) for split, folders in parts.items()}
    names = sorted({name for masks in found.values() for each in masks.values() for name in each})
    stated = next((name for name in names if name.casefold() == BACKGROUND), None)
    if stated is None:
        classes, rest = Classes.make([BACKGROUND, *names]), 0
        uncovered = "background where no mask is"
    else:
        names.remove(stated)
        classes, rest = Classes.make([stated, *names], ignore=IGNORE), IGNORE
        uncovered = "ignored where no mask is"
    value_of = {name: value for value, name in enumerate(classes.names)}
    splits: dict[str, list[Sample]] = {}
    for split, (images, _) in parts.items():
        for image in list_images(images):
            masks = found[split].get(image.stem)
            if masks is None:
                problems.append(
                    Fault(
                        "image-without-mask",
                        image,
                        "has no mask of any class: add one, or remove the image",
                    )
                )
                continue
            files = tuple((value_of[name], path) for name, path in sorted(masks.items()))
            sample = Sample(sample_name(root, image), image, ClassMasks(files[0][1], files, rest))
            splits.setdefault(split, []).append(sample)
    refuse(problems)
    notes = [f"a mask a class: {len(classes)} classes; {uncovered}"]
    return Source(root, "class-masks", splits, classes, False, notes)
