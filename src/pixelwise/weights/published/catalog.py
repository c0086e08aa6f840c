"""The weights that can be downloaded by name, and where they are cached. Needs no PyTorch.

To add weights, add an entry to catalog.toml. Those of a network become a bundle in the cache; those
of an ImageNet classifier are kept as published, for a backbone.
"""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import filter as filter_names
from importlib import resources
from pathlib import Path
from typing import Any

from pixelwise.data.classes import Classes
from pixelwise.data.layouts.cityscapes import CLASSES as CITYSCAPES_CLASSES
from pixelwise.data.published.remote_file import RemoteFile
from pixelwise.data.voc_palette import VOC_CLASSES
from pixelwise.errors import InputError
from pixelwise.file_io import cache_folder


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A file of published weights.

    Attributes:
        name: Name for `pixelwise weights get`.
        remote: The file and its digest.
        publisher: Who published it, a key of `publishers` in catalog.toml.
        license: License of the weights.
        score: Published score.
        backbone: Name of the backbone.
        model: Name of the network; empty for an ImageNet classifier.
        options: Options of the network that do not follow from the file.
        classes: Classes of the network; None for an ImageNet classifier.
        mib: Published size in MiB, if the size in bytes is not known.
        package: Package on PyPI that contains the file; empty if there is none.
        package_folder: Folder of the file in the package's module: MODULE/FOLDER.
    """

    name: str
    remote: RemoteFile
    publisher: str
    license: str
    score: str
    backbone: str
    model: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: Classes | None = None
    mib: float | None = None
    package: str = ""
    package_folder: str = ""

    @property
    def size(self) -> str:
        """Size of the download, such as `97.8 MiB`."""
        mib = self.mib if self.remote.size is None else self.remote.size / 2**20
        return "size unknown" if mib is None else f"{mib:.1f} MiB"

    @property
    def folder(self) -> Path:
        """The folder of these weights in the cache.

        Raises:
            InputError: If there is no cache, because the user has no home folder.
        """
        cache = cache_folder()
        if cache is None:
            raise InputError("no home folder: set PIXELWISE_CACHE to a folder for weights")
        return cache / "weights" / self.name

    @property
    def bundle(self) -> Path:
        """Where the bundle of a network is, if it has been fetched."""
        return self.folder / f"{self.name}.safetensors"

    def find(self) -> Path | None:
        """Return the bundle, or the file of a classifier, if it is on this machine."""
        if self.model:
            candidates = [self.bundle] if cache_folder() else []
        else:
            candidates = self._find_in_package()
            if cache := cache_folder():
                candidates += [self.folder / self.remote.file, cache / self.remote.file]
        return next((path for path in candidates if path.is_file()), None)

    def _find_in_package(self) -> list[Path]:
        module, _, folder = self.package_folder.partition("/")
        spec = importlib.util.find_spec(module) if module else None
        if spec is None or not spec.submodule_search_locations:
            return []
        return [Path(next(iter(spec.submodule_search_locations))) / folder / self.remote.file]


def _read_catalog() -> dict[str, PublishedWeights]:
    text = (resources.files(__package__) / "catalog.toml").read_text("utf-8")
    catalog = tomllib.loads(text)
    classes = {"voc": VOC_CLASSES, "cityscapes": CITYSCAPES_CLASSES}
    classes |= {key: Classes.make(names, ignore=255) for key, names in catalog["classes"].items()}
    entries = {}
    for name, entry in catalog["weights"].items():
        publisher = catalog["publishers"][entry["publisher"]]
        url = publisher.get("url", "").format(file=entry["file"])
        remote = RemoteFile(
            file=entry.pop("file"),
            urls=(url,) if url else (),
            size=entry.pop("size", None),
            digest=entry.pop("digest", ""),
            source=entry.pop("source", publisher.get("source", "")),
            algorithm=entry.pop("algorithm", "sha256"),
        )
        key = entry.pop("classes", "")
        entries[name] = PublishedWeights(
            **entry,
            name=name,
            remote=remote,
            license=publisher["license"],
            classes=classes[key] if key else None,
        )
    return entries


WEIGHTS = _read_catalog()


def list_weights(pattern: str = "*") -> list[str]:
    """List the names of the published weights that `get_weights` fetches.

    Args:
        pattern: Shell-style pattern, such as "*_voc" or "resnet50_*".

    Example:
        >>> list_weights("resnet50_*")
        ['resnet50_imagenet_v1', 'resnet50_imagenet_v2']
    """
    return filter_names(WEIGHTS, pattern)


def find_weights(name: str) -> PublishedWeights:
    """Return the entry with this name.

    Raises:
        InputError: If there is none; the message suggests similar names.
    """
    if name not in WEIGHTS:
        similar = get_close_matches(name, WEIGHTS)
        hint = f" (did you mean {' or '.join(similar)}?)" if similar else ""
        raise InputError(
            f"weights {name!r}: are unknown{hint}: `pixelwise weights list` shows all names"
        )
    return WEIGHTS[name]


def find_bundle(path: Path) -> Path:
    """Return the bundle that a path or the name of published weights stands for.

    A file or folder of this name takes precedence.

    Raises:
        InputError: If these weights have not been fetched or cannot predict; the message names the
            command that fetches them. If nothing has this name but published weights have a
            similar one.
    """
    name = str(path)
    if path.exists() or path.name != name or path.suffix:
        return path
    entry = WEIGHTS.get(name)
    if entry is None:
        similar = get_close_matches(name, WEIGHTS, cutoff=0.8)
        if similar:
            raise InputError(
                f"{name}: does not exist, and no published weights have this name: did you mean "
                f"{' or '.join(similar)}?"
            )
        return path
    if not entry.model:
        raise InputError(
            f"{name}: is an ImageNet classifier, which predicts no masks: train on top of it with "
            f"--weights {name}"
        )
    bundle = entry.find()
    if bundle is None:
        raise InputError(f"{name}: is not on this machine: run `pixelwise weights get {name}`")
    return bundle


def imagenet_weights(backbone: str) -> PublishedWeights:
    """Return the entry for `--weights imagenet`: the first classifier of this backbone.

    Raises:
        InputError: If none is known.
    """
    entries = [entry for entry in WEIGHTS.values() if not entry.model]
    found = next((entry for entry in entries if entry.backbone == backbone), None)
    if found is None:
        known = ", ".join(dict.fromkeys(entry.backbone for entry in entries))
        raise InputError(
            f"backbone {backbone!r}: no ImageNet weights are known for it, only for {known}: start "
            "from random weights with --weights none, or give a file with --weights FILE"
        )
    return found
