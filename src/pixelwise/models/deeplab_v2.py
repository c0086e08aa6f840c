"""DeepLab v2 (arXiv:1606.00915): parallel dilation rates (ASPP) and several image scales.

There are two networks. On VGG16 each rate has its own field of view with fc6, fc7 and scores
(figure 7). On ResNet-101 each rate is a 3x3 convolution straight to the classes. The scores of all
rates are summed; DeepLabV3's ASPP, which concatenates features, is a different layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.backbones import Backbone, create_backbone
from pixelwise.backbones.vgg import AtrousVGG16
from pixelwise.errors import InputError
from pixelwise.layers import upsample_from_pixels
from pixelwise.models.deeplab_v1 import STRIDE, init_normal
from pixelwise.models.segmenter import Segmenter

RATES = {"S": (2, 4, 8, 12), "L": (6, 12, 18, 24)}  # section 4.1.2, at stride 8
SCALES = (0.75, 0.5)
STRIDES = (8, 16)


class FieldsOfViewHead(nn.Module):
    """Score each field of view in c5 and sum the scores.

    Args:
        channels: Number of channels of c5 (B, channels, H/8, W/8), the concatenation of all fc7.
        num_classes: Number of output channels.
        fields: Number of fields of view.
    """

    def __init__(self, channels: int, *, num_classes: int, fields: int) -> None:
        super().__init__()
        self.scores = nn.ModuleList(
            init_normal(nn.Conv2d(channels // fields, num_classes, 1)) for _ in range(fields)
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        fields = features["c5"].chunk(len(self.scores), dim=1)
        scores = [score(fc7) for score, fc7 in zip(self.scores, fields, strict=True)]
        return torch.stack(scores).sum(dim=0)

    def upsample(self, logits: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Upsample the logits to the image's `size` (height, width)."""
        return upsample_from_pixels(logits, stride=STRIDE, size=size)


class SummedASPP(nn.Module):
    """Sum 3x3 convolutions of c5 (B, C5, H/os, W/os) to the classes, one per rate.

    Args:
        channels: Number of channels of c5.
        num_classes: Number of output channels.
        rates: Dilation rates.
    """

    def __init__(self, channels: int, *, num_classes: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            init_normal(nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate))
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

    Args:
        num_classes: Number of classes.
        in_channels: Number of image channels.
        backbone: "vgg16", or a ResNet with bottlenecks.
        aspp: "S" for rates 2, 4, 8, 12, or "L" for rates 6, 12, 18, 24 (at stride 8).
        output_stride: 8, or with a ResNet also 16, which halves the rates.
        multi_scale: Also run the network at half and three quarters of the image size, and take the
            largest logit.
        caffe: Use the authors' form of the ResNet. False uses torchvision's, which its ImageNet
            weights need.
        align_corners: Align corners in every resize, as the authors' code does. VGG16's maps, whose
            positions lie on pixels, always align them.
        width: Multiplier of the channels of VGG16; its fields of view have 1024 channels at 1.

    Raises:
        InputError: If an option is not allowed.
    """
    if aspp not in RATES:
        raise InputError(f"aspp {aspp!r}: must be one of {', '.join(RATES)}")
    strides = STRIDES if backbone != "vgg16" else (STRIDE,)
    if output_stride not in strides:
        allowed = " or ".join(map(str, strides))
        raise InputError(
            f"output_stride {output_stride}: must be {allowed} for DeepLab v2 on {backbone}"
        )
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
        raise InputError(
            f"backbone {backbone!r}: must be vgg16 or a ResNet for DeepLab v2: use resnet101"
        )
    return Segmenter(
        features,
        head,
        scales=SCALES if multi_scale else (),
        align_corners=align_corners or backbone == "vgg16",
    )
