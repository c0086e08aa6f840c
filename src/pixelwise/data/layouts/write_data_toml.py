"""Write down how a dataset was read, as a data.toml that its user can correct."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from pixelwise.data.classes import Classes
from pixelwise.data.layouts.data_toml import FILE_NAME
from pixelwise.data.layouts.path_patterns import PathPattern
from pixelwise.data.layouts.stated import LAYOUT, read_patterns
from pixelwise.data.layouts.structure import find_readings
from pixelwise.data.source import Source
from pixelwise.data.value_mapping import IGNORED
from pixelwise.errors import InputError
from pixelwise.file_io import write_text

_HEADER = (
    "# How pixelwise reads this dataset. Correct it where it is wrong; options of a command take\n"
    "# precedence over this file.\n\n"
)
_NO_CLASSES = (
    "\n# The classes are not clear. Map each value of the masks to a class, for example:\n"
    '# [values]\n# 0 = "background"\n# "1.." = "object"\n# 255 = "ignore"\n'
)


def write_data_toml(root: Path, source: Source, classes: Classes | None) -> Path:
    """Write ROOT/data.toml, with which the dataset is read as now.

    Args:
        root: The folder of the dataset.
        source: What was found in it.
        classes: Its classes; None if they are not clear.

    Returns:
        The file.

    Raises:
        InputError: If there is one already, or no two patterns describe the dataset.
    """
    path = check_absent(root)
    content: dict[str, Any] = dict(_patterns(root, source))
    splits = _names(source)
    images, masks = (PathPattern(content[key], f"--{key}") for key in ("images", "masks"))
    if splits.keys() != {"train"} and splits != _names(read_patterns(root, images, masks, LAYOUT)):
        content["splits"] = splits
    text = _HEADER + tomli_w.dumps(content)
    if classes is None:
        text += _NO_CLASSES
    elif not (root / "classes.toml").is_file():
        text += "\n" + tomli_w.dumps(_class_tables(source, classes))
    write_text(path, text)
    return path


def check_absent(root: Path) -> Path:
    """Return ROOT/data.toml, which does not exist yet; raise InputError if it does."""
    path = root / FILE_NAME
    if os.path.lexists(path):
        raise InputError(f"{path}: exists already: correct it, or remove it to detect the dataset")
    return path


def _names(source: Source) -> dict[str, list[str]]:
    """The names of the images of each split; those drawn for val belong to train."""
    names = {s: [sample.name for sample in samples] for s, samples in source.splits.items()}
    if source.val_drawn:
        names["train"] = sorted(names["train"] + names.pop("val"))
    return {"train": names["all"]} if names.keys() == {"all"} else names


def _patterns(root: Path, source: Source) -> Mapping[str, str]:
    stated = {key: source.stated[key] for key in ("images", "masks") if source.stated.get(key)}
    if len(stated) == 2:
        return stated
    pairs = {s.image: s.mask.path for samples in source.splits.values() for s in samples}
    for reading in find_readings(root):
        if reading.pairs == pairs:
            return {"images": reading.images, "masks": reading.masks}
    raise InputError(
        f"{root}: was read as {source.layout}, which patterns cannot describe: write {FILE_NAME} "
        "by hand for other classes or splits"
    )


def _class_tables(source: Source, classes: Classes) -> dict[str, Any]:
    """The values or colors of the masks and their classes."""
    if source.rgb_allowed:
        colors = dict(zip(classes.colors, classes.names, strict=True))
        if classes.ignore is not None:
            colors.setdefault(classes.ignore_color, IGNORED)
        return {"colors": {",".join(map(str, color)): name for color, name in colors.items()}}
    values = dict(zip(classes.values, classes.names, strict=True))
    ignored = () if classes.ignore is None else (classes.ignore, *classes.also_ignored)
    return {
        "values": {
            str(value): name
            for value, name in sorted({**values, **dict.fromkeys(ignored, IGNORED)}.items())
        }
    }
