"""Which images to predict and how to name the results; no network is needed for either."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pixelwise.data.image_decoding import IMAGE_FORMATS, BeyondPillowError, open_image
from pixelwise.data.image_files import IMAGE_SUFFIXES, list_images
from pixelwise.errors import InputError

SAMPLED = 20  # images whose size is read


def find_images(images: str | Path | Sequence[str | Path]) -> list[Path]:
    """List the images among files and folders.

    Args:
        images: A file, a folder, or several of these.

    Returns:
        The files in the given order, the files of a folder sorted by name, without duplicates.

    Raises:
        InputError: If a path does not exist or a folder contains no images.
    """
    paths: list[Path] = []
    problems: list[str] = []
    for path in map(Path, [images] if isinstance(images, str | Path) else images):
        if path.is_dir():
            inside = list_images(path)
            if not inside:
                allowed = ", ".join(sorted(IMAGE_SUFFIXES))
                problems.append(f"{path}: no images in it: give a folder with images ({allowed})")
            paths += inside
        elif path.exists():
            paths.append(path)
        else:
            problems.append(f"{path}: does not exist: check the path")
    if problems:
        raise InputError(*problems)
    return list(dict.fromkeys(paths))


def typical_size(paths: Sequence[Path]) -> tuple[int, int] | None:
    """Return the median size (height, width) of images, by their number of pixels.

    Only some headers are read. None: no size could be read.
    """
    sizes = []
    for path in paths[:: max(1, len(paths) // SAMPLED)][:SAMPLED]:
        # Files that cannot be read are reported when they are predicted.
        header = open_image(path, IMAGE_FORMATS, decode=False, deep=True)
        with suppress(InputError, BeyondPillowError), header as image:
            sizes.append((image.height, image.width))
    sizes.sort(key=lambda size: size[0] * size[1])
    return sizes[len(sizes) // 2] if sizes else None


def result_names(
    name: str, *, overlay: bool = True, suffixes: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the names of the files of one result.

    Args:
        name: The base name.
        overlay: Whether there is an overlay besides the mask.
        suffixes: What follows the base name in the names of further files.
    """
    first = (".png", "_overlay.png") if overlay else (".png",)
    return tuple(name + suffix for suffix in (*first, *suffixes))


def base_names(paths: Sequence[Path]) -> list[str]:
    """Return a base name for each file: its stem, or its whole name if stems collide."""
    stems = Counter(path.stem for path in paths)
    return [path.stem if stems[path.stem] == 1 else path.name for path in paths]


def output_names(
    paths: Sequence[Path], out: Path, *, overlay: bool = True, suffixes: Sequence[str] = ()
) -> list[str]:
    """Return a base name for the result of each image, and check the files it stands for.

    Args:
        paths: The images.
        out: The output folder.
        overlay: Whether overlays are also written.
        suffixes: As for `result_names`.

    Raises:
        InputError: If two results would have the same name, or one would replace an image.
    """
    names = base_names(paths)
    owner: dict[str, Path] = {}
    inputs = {path.resolve() for path in paths}
    problems = []
    for path, name in zip(paths, names, strict=True):
        for file in result_names(name, overlay=overlay, suffixes=suffixes):
            if file in owner:
                problems.append(
                    f"{path}: its result {file} has the same name as that of {owner[file]}: rename "
                    "one, or predict them into different folders"
                )
            owner[file] = path
            if (out / file).resolve() in inputs:
                problems.append(
                    f"{out / file}: is one of the images and would be replaced by a result: "
                    "choose another --out"
                )
    if problems:
        raise InputError(*problems)
    return names
