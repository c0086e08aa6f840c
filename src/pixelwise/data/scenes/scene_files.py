"""Generated scenes as a data set on disk, in a layout that pixelwise reads."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pixelwise.data.classes import write_classes_toml
from pixelwise.data.scenes.scene import check_request, generate_scene
from pixelwise.data.scenes.scene_classes import SCENE_CLASSES
from pixelwise.data.source import SPLITS
from pixelwise.errors import InputError
from pixelwise.file_io import make_folder

PARTS = ("images", "masks")


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
    """Write a data set of generated scenes and return its folder.

    `images/{train,val,test}/scene_0000.png` are RGB, `masks/{train,val,test}/scene_0000.png`
    palette PNG, and `classes.toml` says what the masks hold. A scene depends on `seed`, its split
    and its number only: more training scenes leave those of validation as they are.

    Raises InputError for a negative count or seed, for a size below 16, where `folder` cannot be
    written, and where it has other files in it already, which would be mixed with these.
    """
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    for split, count in counts.items():
        if count < 0:
            raise InputError(f"{count} scenes for {split}: allowed are 0 and more")
    check_request(seed, height, width)
    names = {split: [f"scene_{i:04d}.png" for i in range(count)] for split, count in counts.items()}
    _refuse_others(folder, {Path(split, name) for split in names for name in names[split]})
    make_folder(folder)
    palette = SCENE_CLASSES.palette()
    for place, split in enumerate(SPLITS):
        if not names[split]:
            continue
        images, masks = (make_folder(folder / part / split) for part in PARTS)
        for number, name in enumerate(names[split]):
            scene_seed = (seed * 1_000_003 + number) * len(SPLITS) + place
            image, mask = generate_scene(scene_seed, height=height, width=width)
            Image.fromarray(image).save(images / name, compress_level=3)
            indexed = Image.fromarray(mask)
            indexed.putpalette(palette)
            indexed.save(masks / name)
    write_classes_toml(folder / "classes.toml", SCENE_CLASSES)
    return folder


def _refuse_others(folder: Path, expected: set[Path]) -> None:
    """Raise InputError for a file in images/ or masks/ that is not among `expected`."""
    for part in PARTS:
        for present in sorted((folder / part).rglob("*")):
            if present.is_file() and present.relative_to(folder / part) not in expected:
                raise InputError(
                    f"{folder}: holds {present.relative_to(folder).as_posix()}, which these scenes "
                    "would be mixed with: give a new or an empty folder, or empty this one"
                )
