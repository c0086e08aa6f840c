"""Sealed files: tensors and a JSON text in one safetensors file, with the SHA-256 of both.

The header's metadata holds one entry: a line with the hash, and the JSON text. One and not two,
since safetensors writes several in any order, and equal contents are to be equal files. Nothing in
the file can run code. safetensors notices a file that is cut off, but a flipped bit loads in
silence: hence the hash.
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
    """Write the file whole or not at all. Raises InputError where that is impossible.

    key: the name of the metadata entry, which says what kind of file it is.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(about, allow_nan=False)
    with atomic(path) as side:
        try:
            save_file(held, side, metadata={key: f"{_digest(text, held)}\n{text}"})
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error


def read_tensor_file(
    path: Path, *, key: str, kind: str, remedy: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, and what was said about them.

    kind and remedy: for messages, as "bundle". Raises InputError for anything that is not a whole,
    undamaged file with this key.
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
    """SHA-256 over the description and each tensor's name, type, shape and bytes, by name."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
