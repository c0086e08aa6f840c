"""Aligned Xception with 65 layers, as modified by DeepLabV3+ (arXiv:1802.02611, section 3.2).

This is the variant of the authors' code (xception_65): every pool is a strided separable
convolution, the middle flow has 16 blocks, and every depthwise convolution has its own batch
normalization.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from pixelwise.backbones.backbone import Backbone, DilationSchedule, initialize_convolutions
from pixelwise.layers import ConvNormAct, SeparableConv

MIDDLE_BLOCKS = 16
EPS = 1e-3  # of the batch normalization in the authors' code; ASPP and decoder use 1e-5

_linear = partial(ConvNormAct, activation=None, eps=EPS)


class Separable(nn.Sequential):
    """ReLU, depthwise 3x3, pointwise 1x1; each convolution has a batch normalization."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, dilation: int) -> None:
        super().__init__(
            nn.ReLU(),  # not in place: the input of a block is also the input of its shortcut
            _linear(in_channels, in_channels, stride=stride, dilation=dilation, groups=in_channels),
            _linear(in_channels, channels, kernel_size=1),
        )


class Block(nn.Module):
    """Three separable convolutions and a shortcut, with a 1x1 convolution where shapes differ.

    Args:
        in_channels: Number of input channels.
        channels: Output channels of the three convolutions.
        stride: Stride of the third convolution.
        dilation: Dilation of all three convolutions.

    Returns:
        The sum, and the output of the second convolution, which is the last map before the stride.
    """

    def __init__(
        self, in_channels: int, channels: tuple[int, int, int], *, stride: int, dilation: int
    ) -> None:
        super().__init__()
        one, two, three = channels
        self.first = Separable(in_channels, one, stride=1, dilation=dilation)
        self.second = Separable(one, two, stride=1, dilation=dilation)
        self.third = Separable(two, three, stride=stride, dilation=dilation)
        self.shortcut = (
            nn.Identity()
            if in_channels == three and stride == 1
            else _linear(in_channels, three, kernel_size=1, stride=stride)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        detail = self.second(self.first(x))
        return self.third(detail) + self.shortcut(x), detail


class Xception(Backbone):
    """Xception-65: (B, in_channels, H, W) to maps c1..c5 with 64, 256, 728, 728 and 2048 channels.

    Strides are 2, 4, 8, 16 and 32 up to `output_stride`; further strides become dilation. c2, which
    the decoder uses, and c3 are taken inside a block, right before its stride and before ReLU.

    Args:
        output_stride: Stride of c5 (8, 16 or 32).
        in_channels: Number of image channels.
    """

    def __init__(self, *, output_stride: int = 16, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNormAct(in_channels, 32, stride=2, eps=EPS), ConvNormAct(32, 64, eps=EPS)
        )
        schedule = DilationSchedule(output_stride, stride=2)

        def block(in_channels: int, widths: tuple[int, int, int], stride: int = 1) -> Block:
            stride, dilation = schedule.step(stride)
            return Block(in_channels, widths, stride=stride, dilation=dilation)

        self.entry1 = block(64, (128, 128, 128), stride=2)
        self.entry2 = block(128, (256, 256, 256), stride=2)
        self.entry3 = block(256, (728, 728, 728), stride=2)
        self.strides = {"c1": 2, "c2": 4, "c3": 8, "c4": schedule.stride}
        self.middle = nn.ModuleList(block(728, (728, 728, 728)) for _ in range(MIDDLE_BLOCKS))
        self.exit1 = block(728, (728, 1024, 1024), stride=2)
        self.strides["c5"] = schedule.stride
        rate = schedule.dilation
        self.exit2 = nn.Sequential(
            SeparableConv(1024, 1536, dilation=rate, eps=EPS),
            SeparableConv(1536, 1536, dilation=rate, eps=EPS),
            SeparableConv(1536, 2048, dilation=rate, eps=EPS),
        )
        self.channels = {"c1": 64, "c2": 256, "c3": 728, "c4": 728, "c5": 2048}
        initialize_convolutions(self, mode="fan_out")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {"c1": self.stem(x)}
        x, _ = self.entry1(maps["c1"])
        x, maps["c2"] = self.entry2(x)
        x, maps["c3"] = self.entry3(x)
        for block in self.middle:
            x, _ = block(x)
        maps["c4"] = x
        x, _ = self.exit1(x)
        maps["c5"] = self.exit2(x)
        return maps
