"""Cityscapes (Cordts et al. 2016): leftImg8bit/ and gtFine/ or gtCoarse/, 19 of its 34 classes."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import Table
from pixelwise.data.classes import read_classes_toml
from pixelwise.data.file_resolver import nfc
from pixelwise.data.folder_listing import walk_files
from pixelwise.data.image_files import IMAGE_SUFFIXES, list_images
from pixelwise.data.layouts.folder_names import folders_in
from pixelwise.data.layouts.layout_classes import class_table, sampled_values
from pixelwise.data.layouts.pairing import mask_source, sample_name
from pixelwise.data.source import Sample, Source
from pixelwise.errors import Fault, InputError, raise_problems

DESCRIPTION = "Cityscapes: leftImg8bit/SPLIT/CITY/ and gtFine/SPLIT/CITY/ (or gtCoarse/)"

_LABEL_IDS = read_classes_toml(Path(__file__).with_suffix(".toml"))
CLASSES = _LABEL_IDS.indexed()
"""The 19 classes by their training ids."""
_CLASSES = {"labelTrainIds": CLASSES, "labelIds": _LABEL_IDS}
"""The classes by the end of the masks' names, in the order of preference."""

_SPLITS = {"train": "train", "train_extra": "train", "val": "val", "test": "test"}

_Splits = dict[str, list[Sample]]


def detect(root: Path) -> bool:
    return (root / "leftImg8bit").is_dir()


def read(root: Path) -> Source:
    mask_root = next((root / n for n in ("gtFine", "gtCoarse") if (root / n).is_dir()), None)
    if mask_root is None:
        raise InputError(f"{root / 'gtFine'}: does not exist: put the masks there, or in gtCoarse/")
    notes: list[str] = []
    pairs = _city_images(root / "leftImg8bit", mask_root, notes)
    for ids in _CLASSES:
        splits = _samples(root, pairs, ids)
        missing = [s for part in splits.values() for s in part if not s.mask.path.is_file()]
        if not missing:
            break
    else:
        raise InputError(
            *(
                f"{sample.image}: has no mask: add {sample.mask.path} or ..._labelTrainIds.png"
                for sample in missing
            )
        )
    _check_masks_have_images(splits, mask_root, ids)
    table = class_table(root, notes)
    if table is None and not _has_its_values(splits, ids):
        notes.append("the masks are not those of Cityscapes: their classes are inferred")
        return Source(root, "cityscapes", splits, notes=notes)
    if table is None:
        table = Table(_CLASSES[ids], False, root)
        notes.append(f"Cityscapes, {mask_root.name} with {ids}: 19 classes; others are ignored")
        if "test" in splits:
            notes.append("test: the published masks are empty; the benchmark keeps the labels")
    return Source(root, "cityscapes", splits, table.classes, table.has_colors, notes)


def _has_its_values(splits: _Splits, ids: str) -> bool:
    """Whether the values of a few masks can be those of Cityscapes.

    Datasets in the same folders number their classes from 0 without a gap. Cityscapes has gaps in
    its ids, some of which are not evaluated, and ignored pixels in every mask.
    """
    masks = [sample.mask.path for samples in splits.values() for sample in samples]
    values = sampled_values(masks)
    if ids == "labelIds":
        values -= {255}
    return not values or (
        values != set(range(len(values))) and not values.isdisjoint(_CLASSES[ids].values)
    )


def _check_masks_have_images(splits: _Splits, mask_root: Path, ids: str) -> None:
    """Report masks of the splits that have no image."""
    used = {sample.mask.path for samples in splits.values() for sample in samples}
    folders = sorted({mask_root / path.relative_to(mask_root).parts[0] for path in used})
    raise_problems(
        [
            Fault("mask-without-image", path, "has no image: add it, or remove the mask")
            for folder in folders
            for path in walk_files(folder, {".png"})
            if path.stem.endswith(f"_{ids}") and path not in used
        ]
    )


def _city_images(
    image_root: Path, mask_root: Path, notes: list[str]
) -> dict[str, list[tuple[Path, Path]]]:
    """List (image, folder of its mask) for each split, over all cities."""
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    present = folders_in(image_root)
    notes += [
        f"skipped, not train, val or test: {folder}"
        for name, folder in present.items()
        if name not in _SPLITS
    ]
    for name, folder in sorted(present.items()):
        masks = mask_root / folder.name
        if name not in _SPLITS:
            continue
        if not masks.is_dir():
            notes.append(f"{name} is skipped: {masks} does not exist")
            continue
        found = [image for city in folders_in(folder).values() for image in list_images(city)]
        text = f"is not directly in a folder of {folder.name}/: move it into {folder.name}/CITY/"
        stray = set(walk_files(folder, IMAGE_SUFFIXES)) - set(found)
        raise_problems([Fault("stray-file", path, text) for path in sorted(stray)])
        if found:
            images = [(image, masks / image.parent.name) for image in sorted(found)]
            pairs.setdefault(_SPLITS[name], []).extend(images)
    if not pairs:
        raise InputError(
            f"{image_root}: contains no images: put them into SPLIT/CITY/ (train, val, test)"
        )
    return pairs


def _samples(root: Path, pairs: dict[str, list[tuple[Path, Path]]], ids: str) -> _Splits:
    folders = {folder for entries in pairs.values() for _, folder in entries}
    # The Unicode forms of the names of an image and its mask may differ.
    masks = {nfc(str(path)): path for f in folders if f.is_dir() for path in list_images(f)}
    splits: _Splits = {}
    for split, entries in pairs.items():
        for image, folder in entries:
            kind = folder.parent.parent.name
            mask = folder / f"{image.stem.removesuffix('_leftImg8bit')}_{kind}_{ids}.png"
            source = mask_source(masks.get(nfc(str(mask)), mask))
            splits.setdefault(split, []).append(Sample(sample_name(root, image), image, source))
    return splits
