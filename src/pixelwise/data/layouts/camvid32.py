"""The original CamVid (Brostow, Fauqueur and Cipolla 2008): RGB masks of 32 classes, NAME_L.png."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import find_table, read_label_colors
from pixelwise.data.image_files import MASK_SUFFIXES
from pixelwise.data.layouts.folder_names import first_names, folders_in
from pixelwise.data.layouts.pairing import pair_splits
from pixelwise.data.layouts.split_lists import list_files, split_by_lists
from pixelwise.data.source import SPLITS, Source

DESCRIPTION = (
    "CamVid with 32 classes: 701_StillsRaw_full/ and LabeledApproved_full/, or train/ and "
    "train_labels/, with masks NAME_L.png"
)

_IMAGES = ("701_stillsraw_full", "701_stillsraw", "images")
_MASKS = ("labeledapproved_full", "labeledapproved", "labels")

# label_colors.txt as published; Void is black and ignored.
CLASSES = read_label_colors(Path(__file__).with_suffix(".txt")).classes


def detect(root: Path) -> bool:
    return any(
        Path(name).stem.endswith("_L")
        for _, masks in _folders(root).values()
        for name in first_names(masks, MASK_SUFFIXES)
    )


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """Image and mask folder of each split; `all` if the folder is not split."""
    present = folders_in(root)
    by_split = {
        split: (present.get(split, root / split), present[f"{split}_labels"])
        for split in SPLITS
        if f"{split}_labels" in present
    }
    if by_split:
        return by_split
    images = next((present[name] for name in _IMAGES if name in present), None)
    masks = next((present[name] for name in _MASKS if name in present), None)
    return {} if images is None or masks is None else {"all": (images, masks)}


def read(root: Path) -> Source:
    notes: list[str] = []
    folders = [(split, *pair) for split, pair in _folders(root).items()]
    splits = pair_splits(root, folders, notes=notes, endings=("", "_L"))
    lists = list_files(root)
    if "all" in splits and lists:
        splits = split_by_lists(splits["all"], lists, notes)
    table = find_table(root)
    if table is not None and table.has_colors:
        notes.append(table.note())
        return Source(root, "camvid32", splits, table.classes, True, notes)
    notes.append("original CamVid: 31 classes by color; black is void and ignored")
    return Source(root, "camvid32", splits, CLASSES, True, notes)
