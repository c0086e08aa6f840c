"""PASCAL VOC 2007 to 2012, with or without SBD's masks in SegmentationClassAug."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import Table, find_table
from pixelwise.data.image_files import list_images
from pixelwise.data.layouts.folder_names import folders_in
from pixelwise.data.layouts.pairing import MASK_LIKE, mask_source, sample_name
from pixelwise.data.layouts.split_lists import read_stems
from pixelwise.data.source import Sample, Source
from pixelwise.data.voc_palette import VOC_CLASSES
from pixelwise.errors import InputError, refuse

DESCRIPTION = "PASCAL VOC: JPEGImages/, SegmentationClass/ (or ...Aug), ImageSets/Segmentation/"

_LISTS = {"train": ("train_aug", "trainaug", "train"), "val": ("val",), "test": ("test",)}


def detect(root: Path) -> bool:
    return any(
        (year / "ImageSets" / "Segmentation").is_dir() and not (year / "labelmap.txt").is_file()
        for year in _years(root)
    )


def _years(root: Path) -> list[Path]:
    """`root`, or what lies in it as VOCdevkit's folders VOC2007 and VOC2012 do."""
    inner = [
        folder
        for parent in (root, root / "VOCdevkit")
        for name, folder in sorted(folders_in(parent).items())
        if name.startswith("voc20")
    ]
    return inner or [root]


def read(root: Path) -> Source:
    years = _years(root)
    if len(years) > 1:
        raise InputError(
            f"{root}: holds {' and '.join(year.name for year in years)}: give one of them"
        )
    notes: list[str] = []
    splits = read_lists(root, years[0], notes)
    table = find_table(years[0]) or Table(VOC_CLASSES, True, Path("VOC"))
    if table.classes is VOC_CLASSES:
        notes.append("PASCAL VOC: 21 classes, 255 is void and ignored")
    else:
        notes.append(table.note())
    return Source(root, "voc", splits, table.classes, table.has_colors, notes)


def read_lists(root: Path, year: Path, notes: list[str]) -> dict[str, list[Sample]]:
    """The samples of ImageSets/Segmentation; images without a mask in `test` are left out."""
    lists = {path.stem: path for path in sorted((year / "ImageSets/Segmentation").glob("*.txt"))}
    masks, images = year / "SegmentationClass", year / "JPEGImages"
    chosen = {
        split: next((lists[name] for name in names if name in lists), None)
        for split, names in _LISTS.items()
    }
    used = {split: path for split, path in chosen.items() if path is not None}
    if (year / "SegmentationClassAug").is_dir():
        masks = year / "SegmentationClassAug"
        notes.append("masks from SegmentationClassAug (VOC with those of SBD)")
    elif "train" in used and used["train"].stem != "train" and "train" in lists:
        used["train"] = lists["train"]
    if not used:
        others = [path for name, path in lists.items() if name != "trainval"] or [*lists.values()]
        if len(others) != 1:
            raise InputError(
                f"{year / 'ImageSets/Segmentation'}: no train.txt and val.txt in it: write the "
                "names of the images into them, a line each"
            )
        used = {"all": others[0]}
    for folder, what in ((images, "images"), (masks, "masks")):
        if not folder.is_dir():
            raise InputError(f"{folder}: is not there: put the {what} into it")
    image_of = {path.stem: path for path in list_images(images)}
    mask_of = {path.stem: path for path in list_images(masks, MASK_LIKE)}
    problems: list[str] = []
    splits: dict[str, list[Sample]] = {}
    for split, path in used.items():
        stems = [stem.split("/")[-1] for stem in read_stems(path)]
        if split == "test" and not any(stem in mask_of for stem in stems):
            notes.append(f"test is left out: its {len(stems)} images have no masks")
            continue
        for stem in stems:
            if stem not in image_of:
                problems.append(f"{images / (stem + '.jpg')}: is not there, but {path} names it")
            elif stem not in mask_of:
                problems.append(f"{masks / (stem + '.png')}: is not there, but {path} names it")
        splits[split] = [
            Sample(sample_name(root, image_of[stem]), image_of[stem], mask_source(mask_of[stem]))
            for stem in stems
            if stem in image_of and stem in mask_of
        ]
    refuse(problems)
    notes.append("splits from " + ", ".join(path.name for path in used.values()))
    return splits
