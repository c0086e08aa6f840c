"""Errors about folders that cannot be read, with the commands that state how to read them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

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
