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
    "train_labels/, masks NAME_L.png"
)

_IMAGES = ("701_stillsraw_full", "701_stillsraw", "images")
_MASKS = ("labeledapproved_full", "labeledapproved", "labels")

# label_colors.txt, without its Void, which is ignored and black.
CLASSES = Classes.make(
    (
        "Animal",
        "Archway",
        "Bicyclist",
        "Bridge",
        "Building",
        "Car",
        "CartLuggagePram",
        "Child",
        "Column_Pole",
        "Fence",
        "LaneMkgsDriv",
        "LaneMkgsNonDriv",
        "Misc_Text",
        "MotorcycleScooter",
        "OtherMoving",
        "ParkingBlock",
        "Pedestrian",
        "Road",
        "RoadShoulder",
        "Sidewalk",
        "SignSymbol",
        "Sky",
        "SUVPickupTruck",
        "TrafficCone",
        "TrafficLight",
        "Train",
        "Tree",
        "Truck_Bus",
        "Tunnel",
        "VegetationMisc",
        "Wall",
    ),
    colors=(
        (64, 128, 64),
        (192, 0, 128),
        (0, 128, 192),
        (0, 128, 64),
        (128, 0, 0),
        (64, 0, 128),
        (64, 0, 192),
        (192, 128, 64),
        (192, 192, 128),
        (64, 64, 128),
        (128, 0, 192),
        (192, 0, 64),
        (128, 128, 64),
        (192, 0, 192),
        (128, 64, 64),
        (64, 192, 128),
        (64, 64, 0),
        (128, 64, 128),
        (128, 128, 192),
        (0, 0, 192),
        (192, 128, 128),
        (128, 128, 128),
        (64, 128, 192),
        (0, 0, 64),
        (0, 64, 64),
        (192, 64, 128),
        (128, 128, 0),
        (192, 128, 192),
        (64, 0, 64),
        (192, 192, 0),
        (64, 192, 0),
    ),
    values=(*range(30), 31),
    ignore=30,
)


def detect(root: Path) -> bool:
    return any(_named_l(masks) for _, masks in _parts(root).values())


def _named_l(folder: Path) -> bool:
    names = first_names(folder, MASK_SUFFIXES)
    return any(Path(name).stem.endswith("_L") for name in names)


def _parts(root: Path) -> dict[str, tuple[Path, Path]]:
    present = folders_in(root)
    parts = {
        split: (present.get(split, root / split), present.get(labels, root / labels))
        for split in SPLITS
        if (labels := f"{split}_labels") in present
    }
    if not parts:
        images = next((present[name] for name in _IMAGES if name in present), None)
        masks = next((present[name] for name in _MASKS if name in present), None)
        if images is not None and masks is not None:
            parts["all"] = (images, masks)
    return parts


def read(root: Path) -> Source:
    notes: list[str] = []
    parts = [(split, *folders) for split, folders in _parts(root).items()]
    splits = pair_splits(root, parts, notes=notes, mask_ending="_L")
    lists = list_files(root)
    if "all" in splits and lists:
        splits = split_by_lists(splits["all"], lists, notes)
    table = find_table(root)
    if table is not None and table.has_colors:
        notes.append(table.note())
        return Source(root, "camvid32", splits, table.classes, True, notes)
    notes.append("the original CamVid: 31 classes by color, black is void and ignored")
    return Source(root, "camvid32", splits, CLASSES, True, notes)
