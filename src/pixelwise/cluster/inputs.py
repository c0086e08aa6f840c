"""Which images to predict: folders, patterns, list files, and WebDataset shards, here or remote."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob, has_magic
from pathlib import Path

from pixelwise.data.folder_listing import list_files
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.error_handling import collect_errors
from pixelwise.errors import InputError, raise_problems
from pixelwise.file_io import read_text
from pixelwise.inference.output_names import output_names
from pixelwise.storage.addresses import (
    RemoteFile,
    as_address,
    find_remote,
    list_remote,
    read_remote,
)

TAR = ".tar"
LIST_SUFFIXES = (".txt", ".list", ".lst")
LEAST_PER_SHARD, MOST_PER_SHARD = 64, 256
SHARDS = 64
"""There are about this many shards, as far as the two limits allow."""


@dataclass(frozen=True)
class Item:
    """An image, or a tar file of images.

    Args:
        shown: Its path or address as the user gave it.
        where: Its address, or its absolute path.
        stamp: Changes when its content changes.
    """

    shown: str
    where: str
    stamp: str


@dataclass(frozen=True)
class Shard:
    """Images that are predicted together, or one tar file.

    Args:
        number: Its number, from 0.
        items: The images, or the tar file.
        names: The base names of their results.
    """

    number: int
    items: tuple[Item, ...]
    names: tuple[str, ...]

    @cached_property
    def key(self) -> str:
        """What identifies the images of the shard, their content and the names of the results."""
        parts = [(item.shown, item.stamp, name) for item, name in self]
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    @property
    def is_tar(self) -> bool:
        return self.items[0].where.endswith(TAR)

    def __iter__(self) -> Iterator[tuple[Item, str]]:
        return zip(self.items, self.names, strict=True)


def find_items(inputs: Sequence[str | Path]) -> list[Item]:
    """List what is to be predicted, in the order given, without duplicates.

    Args:
        inputs: Images, tar files, folders of either, patterns with `*`, and list files with one of
            these in each line, relative to the list.

    Raises:
        InputError: If something does not exist, a folder holds no images, or there are images and
            tar files.
    """
    items: dict[str, Item] = {}
    problems: list[str] = []
    for each in inputs:
        with collect_errors(problems):
            items |= {item.where: item for item in _find(str(each))}
    raise_problems(problems)
    tars = sum(item.where.endswith(TAR) for item in items.values())
    if 0 < tars < len(items):
        raise InputError(
            f"{inputs[0]}: there are {tars} tar files and {len(items) - tars} images: predict them "
            "in two calls"
        )
    return list(items.values())


def divide(
    items: Sequence[Item],
    out: str,
    *,
    overlay: bool,
    suffixes: Sequence[str],
    size: int | None = None,
    parts: int = 1,
) -> list[Shard]:
    """Divide images into shards of neighbors; each tar file is a shard.

    The division depends only on the images and the arguments, not on the machines.

    Args:
        items: The images or tar files.
        out: The folder or address of the results.
        overlay: Whether there are overlays.
        suffixes: What follows the base names of further results.
        size: Images per shard; by default as SHARDS and its limits say.
        parts: The least number of shards, if there are as many images.

    Raises:
        InputError: If two results would have the same name, or one would replace an image.
    """
    if items[0].where.endswith(TAR):
        stems = output_names([Path(i.where) for i in items], Path(out), overlay=False)
        return [Shard(n, (i,), (s,)) for n, (i, s) in enumerate(zip(items, stems, strict=True))]
    paths = [Path(item.where) for item in items]
    names = output_names(paths, Path(out), overlay=overlay, suffixes=suffixes)
    if size is None:
        size = min(MOST_PER_SHARD, max(LEAST_PER_SHARD, -(-len(items) // SHARDS)))
        size = max(1, min(size, len(items) // parts))
    starts = range(0, len(items), size)
    return [
        Shard(number, tuple(items[start : start + size]), tuple(names[start : start + size]))
        for number, start in enumerate(starts)
    ]


def _find(text: str) -> list[Item]:
    address = as_address(text)
    found = _find_remote(address) if address is not None else _find_local(Path(text))
    if not found:
        allowed = ", ".join(sorted(IMAGE_SUFFIXES | {TAR}))
        raise InputError(f"{text}: no images in it: give a folder with images ({allowed})")
    return found


def _find_remote(address: str) -> list[Item]:
    suffix = Path(address).suffix.lower()
    if suffix in LIST_SUFFIXES:
        content = read_remote(address)
        if content is None:
            raise InputError(f"{address}: does not exist: check the address")
        return _read_list(content.decode("utf-8", "replace"), address.rpartition("/")[0])
    if "*" not in address and (suffix in IMAGE_SUFFIXES or suffix == TAR):
        file = find_remote(address)
        if file is None:
            raise InputError(f"{address}: does not exist: check the address")
        return [_remote_item(file)]
    files = [file for file in list_remote(address) if _is_wanted(file.address)]
    return [_remote_item(file) for file in files]


def _find_local(path: Path) -> list[Item]:
    if path.is_dir():
        return [_local_item(file) for file in list_files(path, IMAGE_SUFFIXES | {TAR})]
    if path.suffix.lower() in LIST_SUFFIXES:
        return _read_list(read_text(path), str(path.parent))
    if not path.exists() and has_magic(str(path)):
        found = sorted(glob(str(path), recursive=True))  # noqa: PTH207 - relative and absolute
        return [_local_item(Path(file)) for file in found if _is_wanted(file)]
    if not path.exists():
        raise InputError(f"{path}: does not exist: check the path")
    return [_local_item(path)]


def _read_list(text: str, folder: str) -> list[Item]:
    """Find what the lines of a list name; a relative path is relative to the list."""
    items: list[Item] = []
    problems: list[str] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        plain = as_address(line) is not None or Path(line).is_absolute()
        with collect_errors(problems):
            items += _find(line if plain else f"{folder}/{line}")
    raise_problems(problems)
    return items


def _is_wanted(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return suffix in IMAGE_SUFFIXES or suffix == TAR


def _remote_item(file: RemoteFile) -> Item:
    return Item(file.address, file.address, f"{file.size} {file.tag}")


def _local_item(path: Path) -> Item:
    try:
        state = path.stat()
        stamp = f"{state.st_size} {state.st_mtime_ns}"
    except OSError:  # reported when it is predicted
        stamp = ""
    return Item(str(path), str(path.absolute()), stamp)
