"""Weights of timm's models: from timm's download, or from a file in its format."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pixelwise.backbones.timm_backbone import (
    PREFIX,
    TimmBackbone,
    UnsupportedModelError,
    create_features,
    import_timm,
)
from pixelwise.data.published.download import OFFLINE, DownloadError, is_offline
from pixelwise.errors import InputError
from pixelwise.weights.channel_widening import first_kernel_name, widen
from pixelwise.weights.import_weights import read_state_dict
from pixelwise.weights.normalization import Normalization
from pixelwise.weights.weight_mapping import is_step_counter

FILES = ("model.safetensors", "pytorch_model.bin")
HUB = "https://huggingface.co"


def _config(name: str) -> Any:
    """Return timm's description of the weights of a model; the name has a tag or not."""
    label = f"backbone {PREFIX + name!r}"
    config = import_timm(label).get_pretrained_cfg(name)
    if config is None:
        raise InputError(f"{label}: timm has no such model: `timm.list_models()` lists all")
    return config


def describe_timm_weights(backbone: str) -> str:
    """Return the full name and the license of timm's weights for a backbone."""
    config = _config(backbone.removeprefix(PREFIX))
    return (
        f"timm's weights {config.architecture}.{config.tag} (license: "
        f"{config.license or 'not stated'})"
    )


def find_timm_weights(backbone: str, *, download: bool = True) -> Path:
    """Return the file of timm's weights, from the cache of timm or by download.

    Args:
        backbone: Name of the backbone, timm/NAME.
        download: Whether a download is allowed; PIXELWISE_OFFLINE=1 forbids it anyway.

    Raises:
        InputError: If timm has no weights for this model.
        DownloadError: If they are not in the cache and cannot be downloaded.
    """
    config = _config(backbone.removeprefix(PREFIX))
    repository = config.hf_hub_id
    if not repository:
        raise InputError(
            f"backbone {backbone!r}: timm has no weights {config.tag or ''} to download: start "
            "from random weights with --weights none, or give a file with --weights FILE"
        )
    import huggingface_hub

    files = (config.hf_hub_filename,) if config.hf_hub_filename else FILES
    allowed = download and not is_offline()
    reasons = []
    for file in files:
        try:
            return Path(
                huggingface_hub.hf_hub_download(repository, file, local_files_only=not allowed)
            )
        except Exception as error:  # of the hub's own classes, or of its HTTP library
            reasons.append(str(error).strip().splitlines()[0])
    reason = reasons[0] if allowed else f"{OFFLINE} forbids downloads"
    raise DownloadError(
        f"backbone {backbone!r}: its weights cannot be downloaded ({reason}): run the command "
        f"again, or save {HUB}/{repository}/resolve/main/{files[0]} on another machine and give "
        "it with --weights FILE"
    )


def load_timm_weights(backbone: TimmBackbone, path: Path) -> Normalization:
    """Load a file of timm's weights into a backbone, and return the normalization they expect.

    Raises:
        InputError: If the file cannot be read or is for another model.
    """
    label = f"backbone {PREFIX + backbone.name!r}"
    tensors = _read(path)
    timm = import_timm(label)
    statistics = [name for name, _ in backbone.model.named_buffers() if ".running_" in name]
    own_names = {*statistics, *(name for name, _ in backbone.model.named_parameters())}
    # timm renames and drops the tensors of its published files itself. What the file lacks keeps
    # its initial values, also if all its numbers are shifted.
    loaded = _load(timm, backbone, path, tensors)
    shifted = _load(timm, backbone, path, {name: tensor + 1 for name, tensor in tensors.items()})
    missing = [
        name
        for name, tensor in loaded.items()
        if not is_step_counter(name) and name in own_names and tensor.equal(shifted[name])
    ]
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(missing[:3])}, which {PREFIX}{backbone.name} needs: is it "
            "for another network?"
        )
    bad = [name for name, tensor in loaded.items() if not tensor.isfinite().all()]
    if bad:
        raise InputError(f"{path}: {bad[0]} contains NaN or infinite values: use another file")
    first = first_kernel_name(backbone.model)
    channels = backbone.model.state_dict()[first].shape[1]
    backbone.model.load_state_dict({**loaded, first: widen(loaded[first], channels)})
    config = _config(backbone.name)
    return Normalization(tuple(config.mean), tuple(config.std))


def _load(
    timm: Any, backbone: TimmBackbone, path: Path, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the state dict of the backbone for RGB images with these weights."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it lists the tensors of the classifier
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(0)
            model = create_features(
                timm,
                backbone.name,
                backbone.output_stride,
                3,
                pretrained=True,
                pretrained_cfg_overlay={"state_dict": tensors, "custom_load": False},
            )
    except UnsupportedModelError as error:
        raise InputError(
            f"{path}: does not fit {PREFIX}{backbone.name} ({error}): is it for another network?"
        ) from error
    finally:
        logger.setLevel(level)
    return dict(model.state_dict())


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        return read_state_dict(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}): download it again") from error
