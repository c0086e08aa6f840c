"""Tensors and a JSON description in one safetensors file, with a SHA-256 over both.

The metadata of the file has a single entry: a line with the hash, then the JSON text. It is a
single entry because safetensors writes several in random order, and equal contents should give
equal files. Nothing in the file can run code. safetensors itself detects truncation but not a
flipped bit, hence the hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pixelwise.errors import InputError
from pixelwise.file_io import atomic
from pixelwise.weights.bundle_header import read_bundle_header


def write_tensor_file(
    path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], *, key: str
) -> None:
    """Write tensors and a description atomically.

    Args:
        path: The file.
        tensors: The tensors, on any device.
        about: The description, as plain JSON without NaN.
        key: Metadata entry that identifies the kind of file.

    Raises:
        InputError: If the file cannot be written.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(about, allow_nan=False)
    with atomic(path) as temporary:
        try:
            save_file(on_cpu, temporary, metadata={key: f"{_digest(text, on_cpu)}\n{text}"})
        except SafetensorError as error:  # raised, for instance, when the disk is full
            raise OSError(str(error)) from error


def read_tensor_file(
    path: Path, *, key: str, kind: str, remedy: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by `write_tensor_file` and verify its checksum.

    For the arguments see `read_bundle_header`.

    Returns:
        The tensors, and the description.

    Raises:
        InputError: If the file is not a complete, undamaged file of this kind.
    """
    digest, text = read_bundle_header(path, key=key, kind=kind, remedy=remedy)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: is not a {kind}, or is cut off or damaged ({error}): {remedy}"
        ) from error
    if digest != _digest(text, tensors):
        raise InputError(f"{path}: is damaged (its SHA-256 differs): {remedy}")
    try:
        about = dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: the {kind}'s description is damaged: {remedy}") from error
    return tensors, about


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the description and the name, type, shape and bytes of each tensor, by name."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
