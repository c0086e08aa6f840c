"""Feature extractors. To add one, write a file here and add a line to BACKBONES.

`create_backbone` creates those that take an output stride. VGG, AlexNet and GoogLeNet have fixed
strides and are used by the FCN and DeepLab files in `pixelwise.models` directly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pixelwise.backbones.backbone import Backbone
from pixelwise.backbones.efficientnet_lite import VARIANTS, EfficientNetLite
from pixelwise.backbones.mobilenet_v2 import MobileNetV2
from pixelwise.backbones.mobilenet_v3 import MobileNetV3Large
from pixelwise.backbones.resnet import BLOCKS, ResNet
from pixelwise.backbones.timm_backbone import PREFIX, TimmBackbone, is_timm
from pixelwise.backbones.tiny import Tiny
from pixelwise.backbones.xception import Xception
from pixelwise.errors import InputError

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_large": MobileNetV3Large,
    **{f"efficientnet_lite{n}": partial(EfficientNetLite, variant=n) for n in VARIANTS},
    **{f"resnet{depth}": partial(ResNet, depth=depth) for depth in BLOCKS},
    "xception65": Xception,
    "tiny": Tiny,
}

OUTPUT_STRIDES = (8, 16, 32)


def create_backbone(
    name: str, *, output_stride: int, in_channels: int = 3, **options: Any
) -> Backbone:
    """Create a backbone with random weights.

    Args:
        name: A key of BACKBONES, or timm/NAME for a model of timm.
        output_stride: Stride of the last map: 8, 16 or 32.
        in_channels: Number of image channels.
        options: Further arguments of the backbone, such as `multi_grid` of a ResNet.

    Raises:
        InputError: If the name or the stride is not supported.
    """
    if name not in BACKBONES and not is_timm(name):
        raise InputError(
            f"backbone {name!r} is unknown: must be one of {', '.join(BACKBONES)}, or timm/NAME"
        )
    if output_stride not in OUTPUT_STRIDES:
        allowed = ", ".join(map(str, OUTPUT_STRIDES))
        raise InputError(f"output_stride {output_stride}: must be one of {allowed}")
    if is_timm(name):
        return TimmBackbone(
            name.removeprefix(PREFIX), output_stride=output_stride, in_channels=in_channels
        )
    return BACKBONES[name](output_stride=output_stride, in_channels=in_channels, **options)


__all__ = ["BACKBONES", "OUTPUT_STRIDES", "Backbone", "create_backbone"]
