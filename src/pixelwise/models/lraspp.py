"""LR-ASPP (arXiv:1905.02244, section 6.4): a light head that MobileNetV3 was published with.

As in torchvision, whose weights are published, image pooling covers the whole image, not the large
window of the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.backbones import create_backbone
from pixelwise.layers import ConvNormAct, resize
from pixelwise.layers.aspp import image_mean
from pixelwise.models.segmenter import Segmenter


class LRASPPHead(nn.Module):
    """Gate c5 (B, C5, H/os, W/os) by its mean, and add scores of c3 (B, C3, H/8, W/8).

    The logits have the size of c3.

    Args:
        channels: Number of channels of each backbone map, by name.
        num_classes: Number of output channels.
    """

    def __init__(self, channels: dict[str, int], *, num_classes: int) -> None:
        super().__init__()
        self.project = ConvNormAct(channels["c5"], 128, kernel_size=1)
        self.gate = nn.Conv2d(channels["c5"], 128, 1, bias=False)
        self.classify_fine = nn.Conv2d(channels["c3"], num_classes, 1)
        self.classify = nn.Conv2d(128, num_classes, 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        fine, coarse = features["c3"], features["c5"]
        gated = self.project(coarse) * torch.sigmoid(self.gate(image_mean(coarse)))
        upsampled = resize(gated, size=(fine.shape[2], fine.shape[3]))
        logits: Tensor = self.classify_fine(fine) + self.classify(upsampled)
        return logits


def lraspp(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "mobilenet_v3_large",
    output_stride: int = 16,
) -> Segmenter:
    """LR-ASPP with random weights.

    Args:
        num_classes: Number of classes.
        in_channels: Number of image channels.
        backbone: A key of `backbones.BACKBONES` with a map c3, or a timm backbone.
        output_stride: Stride of c5: 8, 16 or 32.

    Raises:
        InputError: If `backbone` or `output_stride` is not allowed.
    """
    features = create_backbone(backbone, output_stride=output_stride, in_channels=in_channels)
    return Segmenter(features, LRASPPHead(features.channels, num_classes=num_classes))
