"""CVAT's "segmentation mask 1.1": VOC's folders, with the label colors in labelmap.txt."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import find_table
from pixelwise.data.folder_listing import list_files, walk_files
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.folder_names import folders_in
from pixelwise.data.layouts.listed_pairs import ListedPairs
from pixelwise.data.layouts.pairing import MASK_LIKE
from pixelwise.data.layouts.split_lists import read_entries
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
    present = folders_in(root)
    image_folder = next((present[name] for name in _IMAGE_FOLDERS if name in present), root)
    others = [root / name for name in _OTHER_FOLDERS]
    images = [
        path
        for path in walk_files(image_folder, IMAGE_SUFFIXES)
        if not any(path.is_relative_to(other) for other in others)
    ]
    if not images:
        raise InputError(
            f"{image_folder}: contains no images: export from CVAT with 'Save images', or put them "
            f"into {root / 'JPEGImages'}"
        )
    pairs = ListedPairs(
        root, image_folder, root / "SegmentationClass", MASK_LIKE, _color_mask, images
    )
    splits: dict[str, list[Sample]] = {}
    without_mask: list[str] = []
    list_folder = root / "ImageSets" / "Segmentation"
    lists = list_files(list_folder, {".txt"}) if list_folder.is_dir() else []
    listed = [(path, read_entries(path)) for path in lists]
    for path, entries in listed or [(pairs.mask_folder, pairs.all_masks())]:
        samples = pairs.read(entries, path, without_mask=without_mask)
        splits.setdefault(_SPLITS.get(path.stem.casefold(), "all"), []).extend(samples)
    if "all" in splits and len(splits) > 1:
        pairs.problems.append(
            f"{list_folder}: contains lists other than train.txt, val.txt and test.txt: rename or "
            "remove them"
        )
    # A frame is not annotated only if its mask cannot be one with another name.
    pairs.problems += [
        f"{mask}: belongs to no image: add the image, or remove the mask"
        for mask in pairs.masks_without_image
    ]
    raise_problems(pairs.problems)
    notes = [table.note()]
    if without_mask:
        notes.append(f"frames left out because they have no mask: {len(without_mask)}")
    return Source(root, "cvat", splits, table.classes, table.has_colors, notes)
