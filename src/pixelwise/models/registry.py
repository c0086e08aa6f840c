"""Networks by name. A new one is a file in this folder and a line in MODELS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pixelwise.errors import InputError
from pixelwise.models.deeplab_v3plus import deeplab_v3plus
from pixelwise.models.segmenter import Segmenter


@dataclass(frozen=True)
class ModelEntry:
    """How to build a network and what to say about it."""

    build: Callable[..., Segmenter]
    title: str
    paper: str
    backbones: tuple[str, ...]
    output_strides: tuple[int, ...]


MODELS: dict[str, ModelEntry] = {
    "deeplab_v3plus": ModelEntry(
        deeplab_v3plus, "DeepLabV3+", "arXiv:1802.02611", ("mobilenet_v2",), (16, 8)
    ),
}


def create_model(name: str, *, num_classes: int, **options: Any) -> Segmenter:
    """A network with random weights: `create_model("deeplab_v3plus", num_classes=11)`.

    options: those of the network, such as `backbone` and `output_stride`. Raises InputError for an
    unknown name, an option that the network does not have, or a value that it does not allow.
    """
    if name not in MODELS:
        raise InputError(f"model {name!r} is unknown: there are {', '.join(MODELS)}")
    if not 1 <= num_classes <= 255:
        raise InputError(f"num_classes {num_classes}: allowed are 1 to 255")
    try:
        return MODELS[name].build(num_classes=num_classes, **options)
    except TypeError as error:
        raise InputError(f"model {name!r}: {error}") from error
