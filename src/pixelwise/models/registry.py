"""Networks by name. A new one is a file in this folder and a line in MODELS."""

from __future__ import annotations

import inspect
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
    build = MODELS[name].build
    allowed = [key for key in inspect.signature(build).parameters if key != "num_classes"]
    for key, value in options.items():
        if key not in allowed:
            raise InputError(f"model {name!r} has no option {key!r}: it has {', '.join(allowed)}")
        if not isinstance(value, str | int | float | bool):
            raise InputError(f"model {name!r}: {key} = {value!r}: a number or a word is allowed")
    return build(num_classes=num_classes, **options)
