"""Weights of Caffe: a .caffemodel file is a NetParameter message (caffe.proto) with blobs.

Only the messages and fields that hold weights are declared here, under the numbers of caffe.proto;
protobuf skips all others by itself.
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

# A packed list of numbers is, on the wire, a string of bytes; declared as such it is read as one
# array and not number by number.
SCHEMA = {
    "BlobShape": (("dim", 1, "INT64*"),),
    "BlobProto": (
        ("num", 1, "INT64"),  # num to width: the shape in files from before BlobShape
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
PARTS = ("weight", "bias")  # of most layers, in this order

# How a NetParameter can begin: field and wire type of its first field.
_STARTS = re.compile(rb"[\x0a\x12\x1a\x20\x22\x28\x32\x38\x42]|\xa2\x06")
_PROTOTXT = re.compile(r"^\s*(layers?|name|input|input_dim|force_backward)\s*[:{]", re.M)


def looks_like_caffe(head: bytes) -> bool:
    """Whether a file that begins so could be a .caffemodel."""
    return _STARTS.match(head) is not None


def is_prototxt(text: str) -> bool:
    """Whether a text is a definition of a network, which Caffe keeps apart from its weights."""
    return _PROTOTXT.search(text) is not None


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """The blobs of all layers as float32 `LAYER.weight` and `LAYER.bias`, in the file's shapes.

    Further blobs of a layer are `LAYER.blob2` and so on. Raises InputError where protobuf is not
    installed and for a file that is cut off, damaged, or holds no weights.
    """
    classes, error_class = message_classes(
        SCHEMA, package="caffe", path=path, reason="Caffe's files"
    )
    try:
        net = classes["NetParameter"].FromString(path.read_bytes())
    except (error_class, OSError) as error:
        raise InputError(
            f"{path}: is no .caffemodel, or is cut off or damaged: fetch it again"
        ) from error
    tensors: dict[str, Tensor] = {}
    for name, blobs in _layers(net):
        for number, blob in enumerate(blobs):
            part = PARTS[number] if number < len(PARTS) else f"blob{number}"
            key = f"{name}.{part}"
            if key in tensors:
                raise InputError(f"{path}: has two layers {name}: which one counts is not said")
            tensors[key] = _tensor(blob, f"{path}: layer {name}")
    if not tensors:
        raise InputError(f"{path}: holds no weights: give a .caffemodel of a trained network")
    return tensors


def _layers(net: Any) -> Iterator[tuple[str, Any]]:
    for layer in (*net.layers, *net.layer):
        yield layer.name.decode(errors="replace"), layer.blobs


def _tensor(blob: Any, where: str) -> Tensor:
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:
        shape = tuple(getattr(blob, name) for name in LEGACY_SHAPE)
    data, number = (blob.data, "<f4") if blob.data else (blob.double_data, "<f8")
    whole = b"".join(data)
    size = np.dtype(number).itemsize
    if min(shape, default=1) < 0 or math.prod(shape) * size != len(whole):
        raise InputError(
            f"{where}: holds {len(whole) / size:g} numbers for a shape of {shape}: the file is "
            "damaged: fetch it again"
        )
    return torch.from_numpy(np.frombuffer(whole, number).astype(np.float32).reshape(shape))
