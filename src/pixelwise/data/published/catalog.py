"""The datasets that can be downloaded by name. To add one, add an entry to catalog.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pixelwise.data.published.remote_file import RemoteFile
from pixelwise.errors import InputError

EVERYTHING = (("", ""),)


@dataclass(frozen=True, kw_only=True)
class Archive(RemoteFile):
    """One file to download, and which of its entries to unpack.

    Attributes:
        extract: (prefix in the archive, its replacement in the dataset). The first matching prefix
            counts; entries without a matching prefix are not unpacked.
    """

    extract: tuple[tuple[str, str], ...] = EVERYTHING


@dataclass(frozen=True)
class PublishedDataset:
    """A published dataset.

    Attributes:
        name: Name for `pixelwise data get`.
        title: What the dataset contains, in one line.
        terms: Terms of use, in one line.
        archives: Files to download; empty if the dataset must be downloaded by hand.
        manual_download: How to download it by hand; `{to}` stands for the dataset's folder.
        extra: A line about further requirements.
        files: Name and content of small files to write beside the unpacked ones.
    """

    name: str
    title: str
    terms: str
    archives: tuple[Archive, ...] = ()
    manual_download: str = ""
    extra: str = ""
    files: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int | None:
        """Bytes of all archives; None if the size of one is unknown."""
        sizes = [archive.size for archive in self.archives]
        return sum(size for size in sizes if size is not None) if None not in sizes else None


def _read_catalog() -> dict[str, PublishedDataset]:
    catalog = tomllib.loads((resources.files(__package__) / "catalog.toml").read_text("utf-8"))
    datasets = {}
    for name, entry in catalog.items():
        archives = tuple(_read_archive(archive) for archive in entry.pop("archives", ()))
        files = tuple(entry.pop("files", {}).items())
        datasets[name] = PublishedDataset(name, archives=archives, files=files, **entry)
    return datasets


def _read_archive(entry: dict[str, Any]) -> Archive:
    extract = tuple(entry["extract"].items()) if "extract" in entry else EVERYTHING
    return Archive(**{**entry, "urls": tuple(entry["urls"]), "extract": extract})


DATASETS = _read_catalog()


def find_dataset(name: str) -> PublishedDataset:
    """Return the entry with this name, ignoring case.

    Raises:
        InputError: If there is no such dataset; the message lists all names.
    """
    entry = DATASETS.get(name.casefold())
    if entry is None:
        raise InputError(
            f"dataset {name!r} is unknown: choose one of {', '.join(DATASETS)}, or train on a "
            "folder"
        )
    return entry
