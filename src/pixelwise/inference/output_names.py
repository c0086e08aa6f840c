"""Which files to predict and what to call the results; no network needed for either."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.image_files import IMAGE_SUFFIXES, list_images
from pixelwise.errors import InputError
from pixelwise.inference.results import result_names


def find_images(given: Sequence[Path]) -> list[Path]:
    """The images among files and folders, in the order given, each folder's by name.

    Raises InputError for a path that is not there and a folder without images.
    """
    paths: list[Path] = []
    problems: list[str] = []
    for path in given:
        if path.is_dir():
            inside = list_images(path)
            if not inside:
                allowed = ", ".join(sorted(IMAGE_SUFFIXES))
                problems.append(f"{path}: no images in it: give a folder with images ({allowed})")
            paths += inside
        elif path.exists():
            paths.append(path)
        else:
            problems.append(f"{path}: is not there: check the path")
    if problems:
        raise InputError(*problems)
    return list(dict.fromkeys(paths))


def output_names(paths: Sequence[Path], out: Path, *, overlay: bool = True) -> list[str]:
    """A base name for each result: the image's stem, or its whole name where stems collide.

    overlay: whether `Segmentation.save` is to write overlays too.

    Raises InputError where two results would still have one name, or one would replace an image.
    """
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in paths]
    owner: dict[str, Path] = {}
    inputs = {path.resolve() for path in paths}
    problems = []
    for path, name in zip(paths, names, strict=True):
        for file in result_names(name, overlay=overlay):
            if file in owner:
                problems.append(
                    f"{path}: its result {file} is also that of {owner[file]}: rename one, or "
                    "predict them into different folders"
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
