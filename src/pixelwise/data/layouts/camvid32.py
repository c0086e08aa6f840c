"""The original CamVid (Brostow, Fauqueur and Cipolla 2008): RGB masks of 32 classes, NAME_L.png."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.class_tables import find_table
from pixelwise.data.classes import Classes
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

# label_colors.txt without Void, which is black and ignored.
_COLORS = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Wall": (64, 192, 0),
}
CLASSES = Classes.make(
    list(_COLORS), colors=list(_COLORS.values()), values=(*range(30), 31), ignore=30
)


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
