"""Make the copies of CamVid on which docs/ablation.md and the study pages train.

    python benchmarks/camvid_copies.py CAMVID OUT

writes OUT/camvid_half, in which images are averaged over 2x2 pixels and masks are subsampled, and
OUT/cars60: every sixth image of train (60 in all) and all of val at half size, with the classes
rest and car.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise.data.classes import Classes, write_classes_toml

CAR, VOID, IGNORE = 8, 11, 255
SMALL = 60


def halve(source: Path, target: Path) -> None:
    """Write all images and masks at half size, as PNG."""
    for folder in ("train", "val", "trainannot", "valannot"):
        (target / folder).mkdir(parents=True)
        way = Image.Resampling.NEAREST if folder.endswith("annot") else Image.Resampling.BOX
        for file in sorted((source / folder).iterdir()):
            image = Image.open(file)
            size = (image.width // 2, image.height // 2)
            image.resize(size, way).save(target / folder / f"{file.stem}.png")


def keep_cars(source: Path, target: Path) -> None:
    """Write 60 images of train and all of val, with masks of cars."""
    for split in ("train", "val"):
        files = sorted((source / split).iterdir())
        if split == "train":
            files = [files[i] for i in np.linspace(0, len(files) - 1, SMALL).round().astype(int)]
        for kind in ("images", "masks"):
            (target / kind / split).mkdir(parents=True)
        for file in files:
            (target / "images" / split / file.name).write_bytes(file.read_bytes())
            mask = np.asarray(Image.open(source / f"{split}annot" / file.name))
            cars = np.where(mask == VOID, IGNORE, mask == CAR).astype(np.uint8)
            Image.fromarray(cars).save(target / "masks" / split / file.name)
    write_classes_toml(target / "classes.toml", Classes.make(["rest", "car"], ignore=IGNORE))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for argument in ("camvid", "out"):
        parser.add_argument(argument, type=Path)
    given = parser.parse_args()
    halve(given.camvid, given.out / "camvid_half")
    keep_cars(given.out / "camvid_half", given.out / "cars60")
