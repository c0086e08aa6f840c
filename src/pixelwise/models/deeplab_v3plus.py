"""DeepLabV3+ (arXiv:1802.02611): context from ASPP, edges from an early stage.

The head of section 3.1 and figure 2. With Xception and MobileNetV2 its 3x3 convolutions are
depthwise separable, with ResNets they are plain (tables 5 and 3). Rates are those for output stride
16, doubled at 8 (section 4.2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.layers import ASPP, ConvNormAct, SeparableConv, resize
from pixelwise.models.deeplab_v3 import RATES, DeepLabV3Head, check_stride, create_dilated
from pixelwise.models.segmenter import Segmenter


class DeepLabV3PlusHead(nn.Module):
    """Map c2 (B, C2, H/4, W/4) and c5 (B, C5, H/os, W/os) to logits at c2's size."""

    def __init__(
        self,
        channels: dict[str, int],
        *,
        num_classes: int,
        rates: tuple[int, ...],
        separable: bool,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.context = ASPP(channels["c5"], 256, rates=rates, separable=separable)
        self.detail = ConvNormAct(channels["c2"], 48, kernel_size=1)  # few, so that context leads
        conv: type[nn.Module] = SeparableConv if separable else ConvNormAct
        self.fuse = nn.Sequential(conv(256 + 48, 256), conv(256, 256))
        self.classify = nn.Conv2d(256, num_classes, kernel_size=1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        detail = self.detail(features["c2"])
        context = resize(
            self.context(features["c5"]),
            size=(detail.shape[2], detail.shape[3]),
            align_corners=self.align_corners,
        )
        logits: Tensor = self.classify(self.fuse(torch.cat([context, detail], dim=1)))
        return logits


def deeplab_v3plus(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "mobilenet_v2",
    output_stride: int = 16,
    decoder: bool = True,
    aspp: bool = True,
    separable: bool | None = None,
    multi_grid: bool = True,
    align_corners: bool = False,
    tensorflow: bool = False,
    width: float = 1.0,
) -> Segmenter:
    """DeepLabV3+ with random weights.

    output_stride: 16, or 8 for a denser, slower context. decoder: False for the logits of the
    ASPP as they are, as in DeepLabV3. aspp: False for its 1x1 convolution and image pooling alone.
    separable: whether 3x3 convolutions of the head are depthwise separable; by default with every
    backbone but ResNets. multi_grid: as for `deeplab_v3`.

    The authors' published weights ask for align_corners, corners aligned in every resize, and those
    on MobileNetV2 for tensorflow, its form there, and neither decoder nor ASPP
    (arXiv:1801.04381, section 6.3). width: scales MobileNetV2's channels; 0.5 was published, too.

    Raises InputError for another stride, whose rates the paper does not give, and for tensorflow
    and width with another backbone.
    """
    check_stride("DeepLabV3+", output_stride)
    if tensorflow and backbone != "mobilenet_v2":
        raise InputError(f"tensorflow True: is a form of mobilenet_v2, not of {backbone}")
    if separable is None:
        separable = not backbone.startswith("resnet")
    if width != 1 and backbone != "mobilenet_v2":
        raise InputError(f"width {width:g}: is of mobilenet_v2, not of {backbone}")
    form: dict[str, Any] = {"tensorflow": True} if tensorflow else {}
    if width != 1:
        form["width"] = width
    features = create_dilated(
        backbone,
        output_stride=output_stride,
        in_channels=in_channels,
        multi_grid=multi_grid,
        **form,
    )
    rates = RATES[output_stride] if aspp else ()
    head: nn.Module
    if decoder:
        head = DeepLabV3PlusHead(
            features.channels,
            num_classes=num_classes,
            rates=rates,
            separable=separable,
            align_corners=align_corners,
        )
    else:
        head = DeepLabV3Head(
            features.channels["c5"], num_classes=num_classes, rates=rates, separable=separable
        )
    return Segmenter(features, head, align_corners=align_corners)
