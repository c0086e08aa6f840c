"""Generated scenes as a dataset on disk, in the plain folder layout."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pixelwise.data.classes import read_classes_toml, write_classes_toml
from pixelwise.data.scenes.scene import check_arguments, generate_scene
from pixelwise.data.scenes.scene_classes import SCENE_CLASSES
from pixelwise.data.source import SPLITS
from pixelwise.errors import InputError
from pixelwise.file_io import atomic, make_folder

FOLDERS = ("images", "masks")


def write_scenes(
    folder: Path,
    *,
    train: int,
    val: int,
    test: int = 0,
    seed: int = 0,
    height: int = 144,
    width: int = 192,
) -> Path:
    """Write a dataset of generated scenes.

    It consists of RGB images `images/{train,val,test}/scene_0000.png`, palette masks
    `masks/{train,val,test}/scene_0000.png`, and `classes.toml`. A scene depends only on `seed`, its
    split and its number: adding training scenes does not change validation scenes.

    Args:
        folder: Folder to create, or to complete if it contains no other images and masks.
        train: Number of training scenes.
        val: Number of validation scenes.
        test: Number of test scenes.
        seed: Random seed, 0 or more.
        height: Height of the images in pixels, 16 or more.
        width: Width of the images in pixels, 16 or more.

    Returns:
        `folder`.

    Raises:
        InputError: If an argument is out of range, or `folder` cannot be written or contains other
            images, masks or classes, which would be mixed with these or replaced.
    """
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    for split, count in counts.items():
        if count < 0:
            raise InputError(f"{count} scenes for {split}: use 0 or more")
    check_arguments(seed, height, width)
    names = {split: [f"scene_{i:04d}.png" for i in range(count)] for split, count in counts.items()}
    _check_other_files(folder, {Path(split, name) for split in names for name in names[split]})
    make_folder(folder)
    table = folder / "classes.toml"
    if table.exists() and read_classes_toml(table) != SCENE_CLASSES:
        raise InputError(f"{table}: is another file than that of the scenes: give a new folder")
    palette = SCENE_CLASSES.palette()
    for index, split in enumerate(SPLITS):
        if not names[split]:
            continue
        images, masks = (make_folder(folder / kind / split) for kind in FOLDERS)
        for number, name in enumerate(names[split]):
            scene_seed = (seed * 1_000_003 + number) * len(SPLITS) + index
            image, mask = generate_scene(scene_seed, height=height, width=width)
            _save(Image.fromarray(image), images / name)
            indexed = Image.fromarray(mask)
            indexed.putpalette(palette)
            _save(indexed, masks / name)
    if not table.exists():
        with atomic(table) as side:
            write_classes_toml(side, SCENE_CLASSES)
    return folder


def _save(image: Image.Image, path: Path) -> None:
    """Write a PNG file unless it is there already; raise InputError for any other file."""
    if not path.exists():
        with atomic(path) as side:
            image.save(side, "PNG", compress_level=3)
        return
    try:
        with Image.open(path) as present:
            same = present.mode == image.mode and present.tobytes() == image.tobytes()
    except (OSError, ValueError):
        same = False
    if not same:
        raise InputError(f"{path}: is another file than the scene: give a new folder")


def _check_other_files(folder: Path, expected: set[Path]) -> None:
    """Raise InputError for a file in images/ or masks/ that is not among `expected`."""
    for kind in FOLDERS:
        for path in sorted((folder / kind).rglob("*")):
            if path.is_file() and path.relative_to(folder / kind) not in expected:
                raise InputError(
                    f"{folder}: contains {path.relative_to(folder).as_posix()}, which would be "
                    "mixed with the scenes: give a new folder, or empty this one"
                )
