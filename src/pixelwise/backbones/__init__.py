"""Feature extractors: an image in, a dict of maps c1 (stride 2) to c5 (the output stride) out.

Each has `.channels` and `.strides`, dicts by map, and takes `in_channels`, the image's, 3 unless it
is said. A new one is a file here and a line in BACKBONES.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from torch import Tensor, nn

from pixelwise.backbones.mobilenet_v2 import MobileNetV2
from pixelwise.backbones.resnet import BLOCKS, ResNet
from pixelwise.backbones.tiny import Tiny
from pixelwise.backbones.xception import Xception
from pixelwise.errors import InputError


class Backbone(Protocol):
    """What heads and wrappers rely on; an nn.Module besides."""

    channels: dict[str, int]
    strides: dict[str, int]

    def __call__(self, x: Tensor) -> dict[str, Tensor]: ...


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": MobileNetV2,
    **{f"resnet{depth}": partial(ResNet, depth=depth) for depth in BLOCKS},
    "xception65": Xception,
    "tiny": Tiny,
}

OUTPUT_STRIDES = (8, 16, 32)


def create_backbone(
    name: str, *, output_stride: int, in_channels: int = 3, **form: Any
) -> Backbone:
    """A backbone with random weights. `form`: what it takes besides, as a ResNet's `multi_grid`.

    Raises InputError for an unknown name or stride.
    """
    if name not in BACKBONES:
        raise InputError(f"backbone {name!r} is unknown: there are {', '.join(BACKBONES)}")
    if output_stride not in OUTPUT_STRIDES:
        allowed = ", ".join(map(str, OUTPUT_STRIDES))
        raise InputError(f"output_stride {output_stride}: allowed are {allowed}")
    return cast(
        Backbone, BACKBONES[name](output_stride=output_stride, in_channels=in_channels, **form)
    )
