"""DeepLab v2 (arXiv:1606.00915): several rates side by side (ASPP), several image sizes, poly rate.

Two networks: VGG16, where each rate has a field of view of its own with fc6, fc7 and scores (figure
7), and ResNet-101, where each rate is a 3x3 convolution straight to the classes. The scores of all
rates are summed; DeepLabV3's ASPP, which concatenates, is another layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.backbones import Backbone, create_backbone
from pixelwise.backbones.vgg import AtrousVGG16
from pixelwise.errors import InputError
from pixelwise.layers import upsample_from_pixels
from pixelwise.models.deeplab_v1 import STRIDE, start_normal
from pixelwise.models.segmenter import Segmenter

RATES = {"S": (2, 4, 8, 12), "L": (6, 12, 18, 24)}  # section 4.1.2, at stride 8
SCALES = (0.75, 0.5)
STRIDES = (8, 16)


class FieldsOfViewHead(nn.Module):
    """c5 (B, n * C, H/8, W/8), which holds n fc7 side by side, to the sum of their scores."""

    def __init__(self, channels: int, *, num_classes: int, fields: int) -> None:
        super().__init__()
        self.scores = nn.ModuleList(
            start_normal(nn.Conv2d(channels // fields, num_classes, 1)) for _ in range(fields)
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        parts = features["c5"].chunk(len(self.scores), dim=1)
        scored = [score(part) for score, part in zip(self.scores, parts, strict=True)]
        return torch.stack(scored).sum(dim=0)

    def upsample(self, logits: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Logits of the image's `size` (height, width)."""
        return upsample_from_pixels(logits, stride=STRIDE, size=size)


class SummedASPP(nn.Module):
    """c5 (B, C5, H/os, W/os) to the sum of 3x3 convolutions to the classes, one a rate."""

    def __init__(self, channels: int, *, num_classes: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            start_normal(nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate))
            for rate in rates
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return torch.stack([branch(features["c5"]) for branch in self.branches]).sum(dim=0)


def deeplab_v2(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "resnet101",
    aspp: str = "L",
    output_stride: int = 8,
    multi_scale: bool = True,
    caffe: bool = True,
    align_corners: bool = False,
    width: float = 1.0,
) -> Segmenter:
    """DeepLab v2 with random weights.

    backbone: "vgg16", or a ResNet. aspp: "S" for rates 2, 4, 8, 12 or "L" for 6, 12, 18, 24, which
    are those of stride 8. output_stride: 8, or 16 with half the rates, for a ResNet.
    multi_scale: the image at half and three quarters of its size, too; the largest logit wins.
    caffe: the ResNet is the authors' form of it; False: torchvision's, for its ImageNet weights.
    align_corners: in every resize, as in the authors' code; VGG16's maps, which lie on pixels, have
    it always. width: scales the channels of VGG16, whose fields of view have 1024 at 1.
    Raises InputError for another value.
    """
    if aspp not in RATES:
        raise InputError(f"aspp {aspp!r}: allowed are {', '.join(RATES)}")
    strides = STRIDES if backbone != "vgg16" else (STRIDE,)
    if output_stride not in strides:
        allowed = " and ".join(map(str, strides))
        raise InputError(f"output_stride {output_stride}: DeepLab v2 on {backbone} has {allowed}")
    features: Backbone
    head: nn.Module
    if backbone == "vgg16":
        features = AtrousVGG16(
            fields=[(3, rate) for rate in RATES[aspp]],
            hidden=max(1, round(1024 * width)),
            average_pool=False,
            in_channels=in_channels,
            width=width,
        )
        head = FieldsOfViewHead(
            features.channels["c5"], num_classes=num_classes, fields=len(RATES[aspp])
        )
    elif backbone.startswith("resnet"):
        features = create_backbone(
            backbone, output_stride=output_stride, in_channels=in_channels, caffe=caffe
        )
        rates = tuple(rate * STRIDE // output_stride for rate in RATES[aspp])
        head = SummedASPP(features.channels["c5"], num_classes=num_classes, rates=rates)
    else:
        raise InputError(f"backbone {backbone!r}: DeepLab v2 has vgg16 and ResNets: try resnet101")
    return Segmenter(
        features,
        head,
        scales=SCALES if multi_scale else (),
        align_corners=align_corners or backbone == "vgg16",
    )
