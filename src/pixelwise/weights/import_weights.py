"""Read files of weights from other tools, without running any code in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelwise.errors import InputError
from pixelwise.weights.importers.caffe import is_prototxt, looks_like_caffe, read_caffemodel
from pixelwise.weights.importers.tensorflow_checkpoint import is_checkpoint, read_tensorbundle

# What torch.load says about a class that it does not load.
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True)
class ImportedWeights:
    """The contents of a file of weights.

    Attributes:
        path: The file.
        tensors: Tensors by the names in the file; Caffe's are named `LAYER.weight` and
            `LAYER.bias`.
        kind: The tool that wrote the file: "caffe", "pytorch" or "tensorflow".
    """

    path: Path
    tensors: Mapping[str, Tensor]
    kind: str

    @property
    def is_caffe(self) -> bool:
        return self.kind == "caffe"

    @property
    def is_segmenter(self) -> bool:
        """Whether the file has a PyTorch backbone and head, not a classifier."""
        return self.kind == "pytorch" and any(name.startswith("backbone.") for name in self.tensors)


def import_weights(path: Path) -> ImportedWeights:
    """Read weights that another tool wrote. The content and the name of the file tell its format.

    Args:
        path: A .caffemodel, a PyTorch state dict, or a TensorFlow checkpoint: its prefix, one of
            its files, its folder, or an archive that contains it.

    Raises:
        InputError: If the file has another format, or is cut off or damaged.
    """
    remedy = "give a .caffemodel, a .pth, or a TensorFlow checkpoint"
    if is_checkpoint(path):
        return ImportedWeights(path, read_tensorbundle(path), "tensorflow")
    if path.is_dir():
        raise InputError(f"{path}: is a folder: {remedy}")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    if not head:
        raise InputError(f"{path}: is empty (0 bytes): download it again")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        raise InputError(f"{path}: is a safetensors file: {remedy}")
    if head.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive, or a pickle of old versions
        return ImportedWeights(path, read_state_dict(path), "pytorch")
    if path.suffix == ".pb":
        raise InputError(
            f"{path}: is a frozen TensorFlow graph: give the model.ckpt.index that comes with it"
        )
    if _is_text(head):
        if is_prototxt(head.decode(errors="replace")):
            raise InputError(
                f"{path}: is a prototxt, which defines a network without its weights: give the "
                ".caffemodel"
            )
        raise InputError(f"{path}: is a text file and contains no weights: {remedy}")
    if not looks_like_caffe(head):
        raise InputError(f"{path}: is not a file of weights in a known format: {remedy}")
    return ImportedWeights(path, read_caffemodel(path), "caffe")


# Prefixes that wrappers put before all names: parallel training, compilation, Lightning.
WRAPPERS = ("module.", "_orig_mod.", "model.")
STATE_DICT_REMEDY = "save one with torch.save(model.state_dict(), path)"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a PyTorch state dict without running any code in the file.

    A checkpoint may hold the state dict under a key such as "model", beside the optimizer's state.
    Prefixes of wrappers such as "module." are removed.

    Raises:
        InputError: If the file does not hold exactly one state dict, or cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and OS errors alike
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        found = _GLOBAL.search(str(error))
        if found or "TorchScript" in reason:
            kind = found[1] if found else "TorchScript"
            raise InputError(
                f"{path}: holds Python objects ({kind}), which are not loaded because they can run "
                f"code, instead of a state dict alone: {STATE_DICT_REMEDY}"
            ) from error
        raise InputError(
            f"{path}: cannot be read as PyTorch weights ({reason}): download it again"
        ) from error
    tensors = _only_state_dict(path, state)
    odd = [
        n for n, t in tensors.items() if t.layout != torch.strided or t.is_meta or t.is_quantized
    ]
    if odd:
        raise InputError(
            f"{path}: {odd[0]} is sparse, quantized or without values: {STATE_DICT_REMEDY} before "
            "such a conversion"
        )
    return tensors


def _only_state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the state dict in a file's content, without the prefixes of wrappers."""
    if not _is_state_dict(content):
        entries = content.items() if isinstance(content, dict) else ()
        found = {str(key): entry for key, entry in entries if _is_state_dict(entry)}
        loose = any(isinstance(entry, Tensor) and entry.ndim for _, entry in entries)
        if len(found) != 1 or loose:
            problem = "does not contain a state dict (a dict of tensors)"
            if found:
                beside = " and other tensors" if loose else ""
                problem = f"holds several state dicts ({', '.join(found)}{beside})"
            raise InputError(f"{path}: {problem}: {STATE_DICT_REMEDY}")
        (content,) = found.values()
    tensors: dict[str, Tensor] = dict(content)
    while prefix := next((p for p in WRAPPERS if all(n.startswith(p) for n in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _is_text(head: bytes) -> bool:
    return not any(byte < 0x20 and byte not in b"\t\n\r\f" for byte in head)
