"""Aligned Xception with 65 layers, as DeepLabV3+ modifies it (arXiv:1802.02611, section 3.2).

The variant of the authors' code (xception_65): every pool is a strided separable convolution, the
middle flow has 16 blocks, and each depthwise convolution has a batch normalization of its own.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.layers import ConvNormAct, SeparableConv

MIDDLE_BLOCKS = 16
EPS = 1e-3  # of the authors' batch normalization here; ASPP and decoder have 1e-5


class Separable(nn.Sequential):
    """ReLU, depthwise 3x3, pointwise 1x1, each convolution with batch norm."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, dilation: int) -> None:
        super().__init__(
            nn.ReLU(),  # not in place: a block's input is its shortcut's, too
            ConvNormAct(
                in_channels,
                in_channels,
                stride=stride,
                dilation=dilation,
                groups=in_channels,
                activation=None,
                eps=EPS,
            ),
            ConvNormAct(in_channels, channels, kernel_size=1, activation=None, eps=EPS),
        )


class Block(nn.Module):
    """Three separable convolutions, the last with the stride, all with the rate; a shortcut, with
    a convolution where shapes differ.

    Returns the sum, and what the second convolution gives: the last map before the stride.
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
            else ConvNormAct(
                in_channels, three, kernel_size=1, stride=stride, activation=None, eps=EPS
            )
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        detail = self.second(self.first(x))
        return self.third(detail) + self.shortcut(x), detail


class Xception(nn.Module):
    """(B, 3, H, W) to maps c1..c5 of 64, 256, 728, 728 and 2048 channels at strides 2, 4, 8, 16
    and 32. c2, the decoder's, and c3 lie within a block, right before its stride (and before ReLU).

    No stride passes `output_stride` (8, 16 or 32): a block that would pass it keeps stride 1, and
    the convolutions after it are dilated instead, so that the dilated maps contain the strided ones
    at every other position.
    """

    def __init__(self, *, output_stride: int = 16, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNormAct(in_channels, 32, stride=2, eps=EPS), ConvNormAct(32, 64, eps=EPS)
        )
        reached, rate, channels = 2, 1, 64

        def block(widths: tuple[int, int, int], stride: int) -> Block:
            nonlocal reached, rate, channels
            dilation = rate
            if reached * stride > output_stride:
                stride, rate = 1, rate * stride
            made = Block(channels, widths, stride=stride, dilation=dilation)
            reached, channels = reached * stride, widths[-1]
            return made

        self.entry1 = block((128, 128, 128), 2)
        self.entry2 = block((256, 256, 256), 2)
        self.entry3 = block((728, 728, 728), 2)
        self.strides = {"c1": 2, "c2": 4, "c3": 8, "c4": reached}
        self.middle = nn.ModuleList(block((728, 728, 728), 1) for _ in range(MIDDLE_BLOCKS))
        self.exit1 = block((728, 1024, 1024), 2)
        self.strides["c5"] = reached
        self.exit2 = nn.Sequential(
            SeparableConv(1024, 1536, dilation=rate, eps=EPS),
            SeparableConv(1536, 1536, dilation=rate, eps=EPS),
            SeparableConv(1536, 2048, dilation=rate, eps=EPS),
        )
        self.channels = {"c1": 64, "c2": 256, "c3": 728, "c4": 728, "c5": 2048}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

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
