"""Errors about folders that cannot be read, with the commands that state how to read them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from pixelwise.data.class_tables import read_lines
from pixelwise.data.folder_listing import walk_files
from pixelwise.data.image_files import MASK_SUFFIXES
from pixelwise.data.layouts.folder_names import split_folders
from pixelwise.data.layouts.mask_evidence import Side
from pixelwise.data.layouts.structure import Reading, image_folders
from pixelwise.errors import InputError

_MAX_COMMANDS = 6
_MAX_FOLDERS = 4


def command(root: Path, images: str, masks: str) -> str:
    """The command that trains on a dataset with these patterns."""
    return shlex.join(["pixelwise", "train", str(root), "--images", images, "--masks", masks])


def ambiguous(root: Path, readings: Sequence[Reading]) -> InputError:
    """Several readings fit: name them, and print the command for each."""
    named = "; ".join(
        f"{r.images} with {r.masks} ({len(r.pairs)} pairs)" for r in readings[:_MAX_COMMANDS]
    )
    commands = " or ".join(
        f"`{command(root, r.images, r.masks)}`" for r in readings[:_MAX_COMMANDS]
    )
    count = len(readings)
    if count > _MAX_COMMANDS:
        named += f"; and {count - _MAX_COMMANDS} more"
    return InputError(f"{root}: images and masks can be read in {count} ways: {named}: {commands}")


def unreadable(root: Path, folders: Mapping[str, Path]) -> InputError:
    """Stated folders hold no files that belong together."""
    named = " and ".join(f"{kind} {folder}" for kind, folder in folders.items())
    return InputError(
        f"{root}: no file names of {named} belong together: state patterns, such as --images "
        "'images/{id}.jpg' --masks 'masks/{id}_mask.png'"
    )


def check_export(root: Path) -> None:
    """Raise InputError if a tool exported annotations in a form that is not read."""
    xml, names = root / "annotations.xml", root / "classes.txt"
    if xml.is_file():
        raise InputError(
            f"{xml}: is a format of CVAT that is not read: export the task as 'Segmentation mask "
            "1.1' or 'COCO 1.0'"
        )
    folders = (folder / "labels" for folder in (root, *split_folders(root).values()))
    labels = next((folder for folder in folders if _has_only_text(folder)), None)
    if labels is not None:
        listed = [line.strip() for line in read_lines(names)] if names.is_file() else []
        example = json.dumps([n for n in listed if n] or ["first", "second"], ensure_ascii=False)
        raise InputError(
            f"{labels}: holds label files of YOLO, but {root / 'data.yaml'} does not exist: write "
            f"the names of the classes into it: `names: {example}`"
        )


def _has_only_text(folder: Path) -> bool:
    """Whether a folder has text files but no masks."""
    found = {path.suffix.lower() for path in walk_files(folder)} if folder.is_dir() else set()
    return ".txt" in found and found.isdisjoint(MASK_SUFFIXES)


def unknown(root: Path, known: str) -> InputError:
    """No layout was found: print a command that is filled in with the folders that exist."""
    folders = image_folders(root)
    if not folders:
        return InputError(
            f"{root}: no images and masks found in a known layout: it contains no images; use "
            f"images/ and masks/ with files of the same names, or a dataset as published ({known})"
        )
    names = list(folders)
    called_masks = [name for name in names if Side(name.split("/"), ()).has_mask_word]
    images = next((name for name in names if name not in called_masks), names[0])
    masks = next((name for name in (*called_masks, *names) if name != images), images)
    shown = ", ".join(f"{name}/ ({count})" for name, count in list(folders.items())[:_MAX_FOLDERS])
    more = f" and {len(names) - _MAX_FOLDERS} more" if len(names) > _MAX_FOLDERS else ""
    patterns = [_pattern(images, ""), _pattern(masks, "_mask" if masks == images else "")]
    return InputError(
        f"{root}: no images and masks found in a known layout ({known}), and no two folders whose "
        f"files belong together; folders with images are {shown}{more}: state the images and "
        f"masks: `{command(root, *patterns)}`, use images/ and masks/, or write data.toml"
    )


def _pattern(folder: str, ending: str) -> str:
    return f"{{id}}{ending}.*" if folder == "." else f"{folder}/{{id}}{ending}.*"
