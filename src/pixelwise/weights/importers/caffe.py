"""Read Caffe's weights: a .caffemodel file is a NetParameter message (caffe.proto) with blobs.

Only the messages and fields that contain weights are declared here, with the numbers of
caffe.proto; protobuf skips all others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelwise.errors import InputError
from pixelwise.weights.importers.protobuf_schema import message_classes

# A packed list of numbers is encoded like a byte string. Declaring it as bytes lets it be read as
# one array instead of number by number.
SCHEMA = {
    "BlobShape": (("dim", 1, "INT64*"),),
    "BlobProto": (
        ("num", 1, "INT64"),  # num to width: the shape in files older than BlobShape
        ("channels", 2, "INT64"),
        ("height", 3, "INT64"),
        ("width", 4, "INT64"),
        ("data", 5, "BYTES*"),
        ("shape", 7, "BlobShape"),
        ("double_data", 8, "BYTES*"),
    ),
    "V1LayerParameter": (("name", 4, "BYTES"), ("blobs", 6, "BlobProto*")),
    "LayerParameter": (("name", 1, "BYTES"), ("blobs", 7, "BlobProto*")),
    "NetParameter": (
        ("layers", 2, "V1LayerParameter*"),  # until 2015
        ("layer", 100, "LayerParameter*"),
    ),
}
LEGACY_SHAPE = ("num", "channels", "height", "width")
BLOB_NAMES = ("weight", "bias")  # of most layers, in this order

# How a NetParameter can start: number and wire type of its first field.
_STARTS = re.compile(rb"[\x0a\x12\x1a\x20\x22\x28\x32\x38\x42]|\xa2\x06")
_PROTOTXT = re.compile(r"^\s*(layers?|name|input|input_dim|force_backward)\s*[:{]", re.M)


def looks_like_caffe(head: bytes) -> bool:
    """Return whether a file that starts with these bytes could be a .caffemodel."""
    return _STARTS.match(head) is not None


def is_prototxt(text: str) -> bool:
    """Return whether a text defines a network, which Caffe stores separately from its weights."""
    return _PROTOTXT.search(text) is not None


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """Read the blobs of all layers.

    Returns:
        float32 tensors in the shapes of the file, named `LAYER.weight` and `LAYER.bias`; further
        blobs of a layer are `LAYER.blob2` and so on.

    Raises:
        InputError: If protobuf is not installed, or the file is cut off, damaged or without
            weights.
    """
    classes, error_class = message_classes(SCHEMA, package="caffe", path=path, reason="Caffe files")
    try:
        net = classes["NetParameter"].FromString(path.read_bytes())
    except (error_class, OSError) as error:
        raise InputError(
            f"{path}: is not a .caffemodel, or is cut off or damaged: download it again"
        ) from error
    tensors: dict[str, Tensor] = {}
    for name, blobs in _layers(net):
        for number, blob in enumerate(blobs):
            kind = BLOB_NAMES[number] if number < len(BLOB_NAMES) else f"blob{number}"
            key = f"{name}.{kind}"
            if key in tensors:
                raise InputError(f"{path}: has two layers named {name}: download it again")
            tensors[key] = _tensor(blob, f"{path}: layer {name}")
    if not tensors:
        raise InputError(f"{path}: contains no weights: give a .caffemodel of a trained network")
    return tensors


def _layers(net: Any) -> Iterator[tuple[str, Any]]:
    for layer in (*net.layers, *net.layer):
        yield layer.name.decode(errors="replace"), layer.blobs


def _tensor(blob: Any, where: str) -> Tensor:
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:
        shape = tuple(getattr(blob, name) for name in LEGACY_SHAPE)
    chunks, dtype = (blob.data, "<f4") if blob.data else (blob.double_data, "<f8")
    data = b"".join(chunks)
    size = np.dtype(dtype).itemsize
    if min(shape, default=1) < 0 or math.prod(shape) * size != len(data):
        raise InputError(
            f"{where}: has {len(data) / size:g} numbers for shape {shape}, so the file is damaged: "
            "download it again"
        )
    return torch.from_numpy(np.frombuffer(data, dtype).astype(np.float32).reshape(shape))
