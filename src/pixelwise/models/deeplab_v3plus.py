"""DeepLabV3+ (arXiv:1802.02611): context from ASPP, edges from an early stage.

The head of section 3.1 and figure 2, with the depthwise separable convolutions that the paper uses
for Xception and MobileNetV2. Rates are those for output stride 16, doubled at 8 (section 4.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.backbones import create_backbone
from pixelwise.errors import InputError
from pixelwise.layers import ASPP, ConvNormAct, SeparableConv, resize
from pixelwise.models.segmenter import Segmenter

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}


class DeepLabV3PlusHead(nn.Module):
    """Map c2 (B, C2, H/4, W/4) and c5 (B, C5, H/os, W/os) to logits at c2's size."""

    def __init__(
        self, channels: dict[str, int], *, num_classes: int, rates: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.context = ASPP(channels["c5"], 256, rates=rates, separable=True)
        self.detail = ConvNormAct(channels["c2"], 48, kernel_size=1)  # few, so that context leads
        self.fuse = nn.Sequential(SeparableConv(256 + 48, 256), SeparableConv(256, 256))
        self.classify = nn.Conv2d(256, num_classes, kernel_size=1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        detail = self.detail(features["c2"])
        context = resize(self.context(features["c5"]), size=(detail.shape[2], detail.shape[3]))
        logits: Tensor = self.classify(self.fuse(torch.cat([context, detail], dim=1)))
        return logits


def deeplab_v3plus(
    *, num_classes: int, backbone: str = "mobilenet_v2", output_stride: int = 16
) -> Segmenter:
    """DeepLabV3+ with random weights; `output_stride` 16, or 8 for a denser, slower context.

    Raises InputError for another stride, whose rates the paper does not give.
    """
    if output_stride not in RATES:
        allowed = " and ".join(map(str, sorted(RATES)))
        raise InputError(f"output_stride {output_stride}: DeepLabV3+ has {allowed}")
    features = create_backbone(backbone, output_stride=output_stride)
    head = DeepLabV3PlusHead(features.channels, num_classes=num_classes, rates=RATES[output_stride])
    return Segmenter(features, head)
