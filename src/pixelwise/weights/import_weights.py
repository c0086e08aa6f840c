"""Read files of weights from other tools, without running any code in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.errors import InputError
from pixelwise.weights.importers.caffe import is_prototxt, looks_like_caffe, read_caffemodel
from pixelwise.weights.importers.tensorflow_checkpoint import is_checkpoint, read_tensorbundle


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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a PyTorch state dict without running any code in the file.

    Raises:
        InputError: If the file is not a state dict, or cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and OS errors alike
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as PyTorch weights ({reason}): download it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(
            f"{path}: does not contain a state dict (a dict of tensors): save one with "
            "torch.save(model.state_dict(), path)"
        )
    return state


def _is_text(head: bytes) -> bool:
    return not any(byte < 0x20 and byte not in b"\t\n\r\f" for byte in head)
