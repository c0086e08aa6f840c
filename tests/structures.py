"""Miniatures of published datasets that only their structure identifies, and of ambiguous folders.

Each entry is written from the folder structure that the publishers describe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from miniatures import blobs, write_image, write_mask

Pairs = dict[str, dict[str, str]]
"""Image and mask files by split."""


def pairs(
    image: str, mask: str, splits: dict[str, tuple[str, int]] | None = None, *, scenes: int = 1
) -> Pairs:
    """Paths from two templates with `s` (name of the split), `n` (number) and `scene`."""
    found: Pairs = {}
    number = 0
    for split, (name, count) in (splits or {"all": ("", 4)}).items():
        for _ in range(count):
            for scene in range(scenes):
                values = {"s": name, "n": number, "scene": f"seq{scene + 1}"}
                found.setdefault(split, {})[image.format(**values)] = mask.format(**values)
            number += 1
    return found


TRAIN_VAL = {"train": ("train", 3), "val": ("val", 2)}

STRUCTURES: dict[str, Pairs] = {
    "MMSegmentation": pairs("img_dir/{s}/p{n}.jpg", "ann_dir/{s}/p{n}.png", TRAIN_VAL),
    "DeepGlobe": pairs("{s}/{n}8_sat.jpg", "{s}/{n}8_mask.png", {**TRAIN_VAL, "val": ("valid", 2)}),
    "Inria": pairs(
        "AerialImageDataset/{s}/images/austin{n}.tif",
        "AerialImageDataset/{s}/gt/austin{n}.tif",
        {"train": ("train", 4)},
    ),
    "GID15": pairs(
        "gid-15/GID/img_dir/{s}/GF2_PMS1__L1A00_{n}.tif",
        "gid-15/GID/ann_dir/{s}/GF2_PMS1__L1A00_{n}_15label.tif",
        TRAIN_VAL,
    ),
    "membrane": pairs(
        "membrane/{s}/image/{n}.png", "membrane/{s}/label/{n}.png", {"train": ("train", 4)}
    ),
    "LoveDA": pairs(
        "{s}/Urban/images_png/{n}.png",
        "{s}/Urban/masks_png/{n}.png",
        {"train": ("Train", 3), "val": ("Val", 2)},
    ),
    "ISIC 2018": pairs(
        "ISIC2018_Task1-2_{s}_Input/ISIC_000{n}.jpg",
        "ISIC2018_Task1_{s}_GroundTruth/ISIC_000{n}_segmentation.png",
        {"train": ("Training", 3), "val": ("Validation", 2), "test": ("Test", 2)},
    ),
    "nnU-Net": pairs(
        "Dataset120/images{s}/case_00{n}_0000.png",
        "Dataset120/labels{s}/case_00{n}.png",
        {"train": ("Tr", 3), "test": ("Ts", 2)},
    ),
    "UAVid": pairs(
        "uavid_{s}/{scene}/Images/00000{n}.png",
        "uavid_{s}/{scene}/Labels/00000{n}.png",
        TRAIN_VAL,
        scenes=2,
    ),
    "FloodNet": pairs(
        "{s}/{s}-org-img/66{n}.jpg",
        "{s}/{s}-label-img/66{n}_lab.png",
        {**TRAIN_VAL, "test": ("test", 2)},
    ),
    "Massachusetts": pairs(
        "tiff/{s}/1007{n}_15.tiff",
        "tiff/{s}_labels/1007{n}_15.tif",
        {**TRAIN_VAL, "test": ("test", 2)},
    ),
    "Potsdam": pairs(
        "2_Ortho_RGB/top_potsdam_2_1{n}_RGB.tif", "5_Labels_all/top_potsdam_2_1{n}_label.tif"
    ),
    "Vaihingen": pairs(
        "top/top_mosaic_09cm_area{n}.tif", "gts_for_participants/top_mosaic_09cm_area{n}.tif"
    ),
    "Oxford-IIIT Pet": pairs("images/Abyssinian_{n}.jpg", "annotations/trimaps/Abyssinian_{n}.png"),
    "SUIM": pairs(
        "{s}/images/d_r_{n}_.jpg",
        "{s}/masks/d_r_{n}_.bmp",
        {"train": ("train_val", 3), "test": ("TEST", 2)},
    ),
    "Carvana": pairs("{s}/0cdf_{n}.jpg", "{s}_masks/0cdf_{n}_mask.png", {"train": ("train", 4)}),
    "Supervisely": pairs("ds0/img/p{n}.jpg", "ds0/ann/p{n}.jpg.png"),
    "one folder per image": pairs("case{n}/image.png", "case{n}/label.png"),
    "Kvasir in PNG": pairs("kvasir-seg/Images/cju{n}.jpg", "kvasir-seg/Masks/cju{n}.png"),
    "scenes": pairs("images/{scene}/{n}.jpg", "masks/{scene}/{n}.png", scenes=2),
    "prefixes": pairs("images/p{n}.jpg", "masks/mask_p{n}.png"),
    "DRIVE in PNG": pairs(
        "DRIVE/{s}/images/2{n}_{s}.tif",
        "DRIVE/{s}/1st_manual/2{n}_manual1.png",
        {"train": ("training", 3), "test": ("test", 2)},
    ),
    "DUTS": pairs(
        "DUTS-{s}/DUTS-{s}-Image/n0{n}.jpg",
        "DUTS-{s}/DUTS-{s}-Mask/n0{n}.png",
        {"train": ("TR", 3), "test": ("TE", 2)},
    ),
    "BDD100K": pairs(
        "bdd100k/images/10k/{s}/a{n}-b.jpg",
        "bdd100k/labels/sem_seg/masks/{s}/a{n}-b.png",
        TRAIN_VAL,
    ),
    "flat masks": pairs("imgs/{s}/p{n}.jpg", "gt/p{n}.png", TRAIN_VAL),
    "letter case": pairs(
        "DATA/{s}/IMG/{n}.png", "DATA/{s}/GT/{n}.png", {"train": ("TRAIN", 3), "val": ("VAL", 2)}
    ),
    "no words": pairs("a/{n}.jpg", "b/{n}.png"),
}


def write_pairs(root: Path, found: Pairs) -> None:
    number = 0
    for by_image in found.values():
        for image, mask in by_image.items():
            write_image(root / image, number)
            write_mask(root / mask, blobs(number, 3))
            number += 1


def _copies(
    *folders: str, image: str = "images/p{n}.jpg", name: str = "p{n}.png"
) -> Callable[[Path], None]:
    """Images with a mask in each of several folders."""

    def write(root: Path) -> None:
        for n in range(4):
            write_image(root / image.format(n=n), n)
            for shift, folder in enumerate(folders):
                write_mask(root / folder / name.format(n=n), blobs(n + 10 * shift, 3))

    return write


def _several_images(*folders: str, masks: str = "masks") -> Callable[[Path], None]:
    """Masks with an image in each of several folders."""

    def write(root: Path) -> None:
        for n in range(4):
            write_mask(root / masks / f"p{n}.png", blobs(n, 3))
            for shift, folder in enumerate(folders):
                write_image(root / folder / f"p{n}.jpg", n + 10 * shift)

    return write


def cwfid(root: Path) -> None:
    """Crop/weed field images: two kinds of masks."""
    for n in range(4):
        write_image(root / f"images/00{n}_image.png", n)
        write_mask(root / f"annotations/00{n}_annotation.png", CWFID_COLORS[blobs(n, 3)])
        write_mask(root / f"masks/00{n}_mask.png", (blobs(n, 2) * 255).astype(np.uint8))


CWFID_COLORS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], dtype=np.uint8)


def _two_endings(root: Path) -> None:
    for n in range(4):
        write_image(root / f"p{n}.jpg", n)
        write_mask(root / f"p{n}_coarse.png", blobs(n, 3))
        write_mask(root / f"p{n}_fine.png", blobs(n + 10, 3))


def _two_cities(root: Path) -> None:
    for n in range(4):
        write_image(root / f"vienna/rgb/p{n}.jpg", n)
        write_mask(root / f"vienna/gt/p{n}.png", blobs(n, 3))
        write_image(root / f"graz/photos/q{n}.jpg", 10 + n)
        write_mask(root / f"graz/labels/q{n}.png", blobs(10 + n, 3))


def _two_file_types(root: Path) -> None:
    for n in range(4):
        for kind, folder in ((".png", "png"), (".tif", "tiff")):
            write_image(root / f"{folder}/train/p{n}{kind}", n)
            write_mask(root / f"{folder}/train_labels/p{n}{kind}", blobs(n, 3))


AMBIGUOUS: dict[str, Callable[[Path], None]] = {
    "CWFID": cwfid,
    "class and instance masks": _copies("masks", "instance_masks"),
    "two annotators": _copies("annotator1", "annotator2", image="scans/p{n}.jpg"),
    "vegetation and classes": _copies("labels", "vegetation"),
    "predictions beside masks": _copies("masks", "predictions"),
    "Potsdam with infrared": _several_images("2_Ortho_RGB", "3_Ortho_IRRG", masks="5_Labels"),
    "two kinds of images": _several_images("images", "images_enhanced"),
    "ETCI": _copies("tiles/flood_label", "tiles/water_body_label", image="tiles/vv/p{n}.png"),
    "two endings": _two_endings,
    "two datasets": _two_cities,
    "copies in two file types": _two_file_types,
    "masks in splits": _copies("train/gt", "train/gt_color", image="train/rgb/p{n}.jpg"),
}


def crack_forest(root: Path) -> None:
    """CrackForest: MATLAB structures with values 1 (background) and 2 (crack)."""
    from scipy.io import savemat

    (root / "groundTruth").mkdir(parents=True)
    for n in range(4):
        write_image(root / f"image/00{n}.jpg", n)
        mask = blobs(n, 2) + 1
        content: dict[str, Any] = {"Segmentation": mask, "Boundaries": (mask > 1).astype(np.uint8)}
        savemat(root / f"groundTruth/00{n}.mat", {"groundTruth": content})


def penn_fudan(root: Path) -> None:
    """Penn-Fudan: each mask numbers its persons."""
    for n in range(4):
        write_image(root / f"PNGImages/FudanPed0000{n}.png", n)
        write_mask(root / f"PedMasks/FudanPed0000{n}_mask.png", persons(n))


def persons(number: int) -> np.ndarray[Any, Any]:
    """A mask of one to four persons, numbered from 1; in one, a post hides a part of a person."""
    mask = np.zeros((40, 56), np.uint8)
    for person in range(1, number + 2):
        mask[6 + person : 36 - person, 13 * person - 9 : 13 * person + 1] = person
    if number == 2:
        mask[:, 6:8] = 0
    return mask


def masks_of(root: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The stored values of all mask images in a folder, by path."""
    for path in sorted(root.rglob("*")):
        if path.suffix in (".png", ".tif", ".bmp"):
            with Image.open(path) as image:
                yield path.relative_to(root).as_posix(), np.asarray(image)
