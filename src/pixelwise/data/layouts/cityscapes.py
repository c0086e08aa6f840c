"""Cityscapes (Cordts et al. 2016): leftImg8bit/ and gtFine/ or gtCoarse/, 19 of its 34 classes."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import Table, find_table
from pixelwise.data.classes import Classes
from pixelwise.data.image_files import list_images
from pixelwise.data.layouts.folder_names import folders_in
from pixelwise.data.layouts.pairing import mask_source, sample_name
from pixelwise.data.source import Sample, Source
from pixelwise.errors import InputError

DESCRIPTION = "Cityscapes: leftImg8bit/SPLIT/CITY/, gtFine/SPLIT/CITY/ (or gtCoarse/)"

# name, id in ..._labelIds.png, color; in the order of the training ids 0..18.
_CLASSES = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
_NAMES = tuple(name for name, _, _ in _CLASSES)
_COLORS = tuple(color for _, _, color in _CLASSES)
_IDS = tuple(value for _, value, _ in _CLASSES)

TRAIN_IDS = Classes.make(_NAMES, colors=_COLORS, ignore=255)
# 0 is "unlabeled"; the other ids up to 33 are not evaluated. 255 stands for -1, the license plate.
LABEL_IDS = Classes.make(
    _NAMES,
    colors=_COLORS,
    values=_IDS,
    ignore=0,
    also_ignored=(*(value for value in range(1, 34) if value not in _IDS), 255),
)

_SPLITS = {"train": "train", "train_extra": "train", "val": "val", "test": "test"}


def detect(root: Path) -> bool:
    return (root / "leftImg8bit").is_dir()


def read(root: Path) -> Source:
    truth = next((root / n for n in ("gtFine", "gtCoarse") if (root / n).is_dir()), None)
    if truth is None:
        raise InputError(f"{root / 'gtFine'}: is not there: put the masks into it, or gtCoarse/")
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    folders = [
        (split, folder)
        for split, folder in sorted(folders_in(root / "leftImg8bit").items())
        if split in _SPLITS
    ]
    beside = [folder for name, folder in folders_in(root / "leftImg8bit").items()]
    notes = [
        f"left out, not train, val or test: {folder}"
        for folder in beside
        if folder.name.casefold() not in _SPLITS
    ]
    for split, folder in folders:
        if not (truth / folder.name).is_dir():
            notes.append(f"{split} is left out: {truth / folder.name} is not there")
            continue
        for city in sorted(folders_in(folder).values()):
            pairs.setdefault(_SPLITS[split], []).extend(
                (image, truth / folder.name / city.name) for image in list_images(city)
            )
    pairs = {split: found for split, found in pairs.items() if found}
    if not pairs:
        raise InputError(
            f"{root / 'leftImg8bit'}: no images in it: put them into SPLIT/CITY/ (train, val, test)"
        )
    ids, classes = "labelTrainIds", TRAIN_IDS
    splits = _samples(root, pairs, ids)
    if _missing(splits):
        ids, classes = "labelIds", LABEL_IDS
        splits = _samples(root, pairs, ids)
    missing = _missing(splits)
    if missing:
        raise InputError(
            *(
                f"{sample.image}: has no mask: expected {sample.mask.path} or ..._labelTrainIds.png"
                for sample in missing
            )
        )
    table = find_table(root) or Table(classes, False, root)
    notes.append(
        table.note()
        if table.path != root
        else f"Cityscapes, {truth.name} by {ids}: 19 classes, all others are ignored"
    )
    if "test" in splits and table.path == root:
        notes.append("the published masks of test are empty: its labels are kept by the benchmark")
    return Source(root, "cityscapes", splits, table.classes, table.has_colors, notes)


def _samples(
    root: Path, pairs: dict[str, list[tuple[Path, Path]]], ids: str
) -> dict[str, list[Sample]]:
    return {
        split: [
            Sample(sample_name(root, image), image, mask_source(_mask(image, folder, ids)))
            for image, folder in found
        ]
        for split, found in pairs.items()
    }


def _missing(splits: dict[str, list[Sample]]) -> list[Sample]:
    return [s for samples in splits.values() for s in samples if not s.mask.path.is_file()]


def _mask(image: Path, folder: Path, ids: str) -> Path:
    kind = folder.parent.parent.name
    return folder / f"{image.stem.removesuffix('_leftImg8bit')}_{kind}_{ids}.png"
