"""CVAT's "segmentation mask 1.1": VOC's folders, with the label colors in labelmap.txt."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import find_table
from pixelwise.data.image_files import list_images
from pixelwise.data.layouts.folder_names import folders_in
from pixelwise.data.layouts.pairing import MASK_LIKE, FilesByStem, pair_stems
from pixelwise.data.layouts.split_lists import read_stems
from pixelwise.data.mask_files import MaskReading
from pixelwise.data.source import MaskFile, Sample, Source
from pixelwise.errors import InputError, raise_problems

DESCRIPTION = "CVAT segmentation mask 1.1: labelmap.txt, SegmentationClass/, ImageSets/ and images"

_SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs")
_OTHER_FOLDERS = {"SegmentationClass", "SegmentationObject", "ImageSets"}


def _color_mask(path: Path) -> MaskFile:
    """A mask whose colors identify the classes, in its pixels, its palette or its gray tones."""
    return MaskFile(path, MaskReading.COLORS)


def detect(root: Path) -> bool:
    return (root / "labelmap.txt").is_file() and (root / "SegmentationClass").is_dir()


def read(root: Path) -> Source:
    table = find_table(root)  # classes.toml, else labelmap.txt
    assert table is not None
    mask_folder = root / "SegmentationClass"
    masks = FilesByStem.in_folder(mask_folder, ".png", MASK_LIKE)
    present = folders_in(root)
    image_folder = next((present[name] for name in _IMAGE_FOLDERS if name in present), root)
    # Images may be in folders named after their subset.
    files = {
        path.stem: path
        for folder in (image_folder, *folders_in(image_folder).values())
        if folder.name not in _OTHER_FOLDERS
        for path in list_images(folder)
    }
    images = FilesByStem(image_folder, ".jpg", files)
    if not files:
        raise InputError(
            f"{image_folder}: contains no images: export from CVAT with 'Save images', or put them "
            f"into {root / 'JPEGImages'}"
        )
    splits: dict[str, list[Sample]] = {}
    problems: list[str] = []
    lists = sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))
    listed = [(path, read_stems(path)) for path in lists] or [(mask_folder, sorted(masks.files))]
    for path, stems in listed:
        names = [Path(stem).name for stem in stems]
        splits.setdefault(_SPLITS.get(path.stem.casefold(), "all"), []).extend(
            pair_stems(root, names, images, masks, _color_mask, listed_in=path, problems=problems)
        )
    if "all" in splits and len(splits) > 1:
        problems.append(
            f"{lists[0].parent}: contains lists other than train.txt, val.txt and test.txt: rename "
            "or remove them"
        )
    raise_problems(problems)
    return Source(root, "cvat", splits, table.classes, table.has_colors, [table.note()])
