"""MobileNetV2 (arXiv:1801.04381), dilated for dense prediction as in DeepLab.

Parameter names are torchvision's, so its published ImageNet weights load unchanged. As in the
DeepLab authors' code the last map has 320 channels: the classifier's 1x1 convolution to 1280
channels (torchvision's `features.18`) is not part of the backbone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from pixelwise.backbones.backbone import Backbone, DilationSchedule, run_with_taps
from pixelwise.errors import InputError
from pixelwise.layers import ConvNormAct

# (expansion, channels, repeats, stride): table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

# Index in `features` of the last block at each stride of the plain network.
TAPS = {1: "c1", 3: "c2", 6: "c3", 13: "c4", 17: "c5"}

TENSORFLOW_EPS = 1e-3


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution and 1x1 projection without activation (section 3.3).

    A shortcut is added if input and output have the same shape.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        expansion: Factor of the expansion; 1 leaves the expansion out.
        stride: Stride of the depthwise convolution.
        dilation: Dilation of the depthwise convolution.
        kernel_size: Side of the depthwise kernel.
        eps: Value added to the variance in every normalization.
        tensorflow_padding: Pad the depthwise convolution as TensorFlow does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        stride: int,
        dilation: int,
        kernel_size: int = 3,
        eps: float = 1e-5,
        tensorflow_padding: bool = False,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        conv = partial(ConvNormAct, activation=nn.ReLU6, eps=eps)
        expand = [conv(in_channels, hidden, kernel_size=1)] if expansion != 1 else []
        project = ConvNormAct(hidden, out_channels, kernel_size=1, activation=None, eps=eps)
        depthwise = conv(
            hidden,
            hidden,
            kernel_size=kernel_size,
            stride=stride,
            dilation=dilation,
            groups=hidden,
            tensorflow_padding=tensorflow_padding,
        )
        self.conv = nn.Sequential(*expand, depthwise, *project)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.shortcut else out


class MobileNetV2(Backbone):
    """MobileNetV2: (B, in_channels, H, W) to maps c1..c5 with 16, 24, 32, 96 and 320 channels.

    Strides are 2, 4, 8, 16 and 32 up to `output_stride`; further strides become dilation.

    Args:
        output_stride: Stride of c5 (8, 16 or 32).
        in_channels: Number of image channels.
        tensorflow: Use the form that the authors' own weights need: TensorFlow's padding and a
            larger eps in batch normalization.
        width: Multiplier of the channels, rounded to multiples of 8 (section 6.1, "width
            multiplier"), above 0 and at most 4.

    Raises:
        InputError: If `width` is not allowed.
    """

    def __init__(
        self,
        *,
        output_stride: int = 16,
        in_channels: int = 3,
        tensorflow: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.form = "tensorflow" if tensorflow else "torchvision"
        if not 0 < width <= 4:
            raise InputError(f"width {width:g}: must be above 0 and at most 4")
        form: dict[str, Any] = (
            {"eps": TENSORFLOW_EPS, "tensorflow_padding": True} if tensorflow else {}
        )
        channels = scale_channels(32, width)
        blocks: list[nn.Module] = [
            ConvNormAct(in_channels, channels, stride=2, activation=nn.ReLU6, **form)
        ]
        self.channels, self.strides = {}, {}
        schedule = DilationSchedule(output_stride, stride=2)
        for expansion, base, repeats, stride in STAGES:
            for repeat in range(repeats):
                step, dilation = schedule.step(stride if repeat == 0 else 1)
                inputs, channels = channels, scale_channels(base, width)
                if len(blocks) in TAPS:
                    self.channels[TAPS[len(blocks)]] = channels
                    self.strides[TAPS[len(blocks)]] = schedule.stride
                blocks.append(
                    InvertedResidual(
                        inputs,
                        channels,
                        expansion=expansion,
                        stride=step,
                        dilation=dilation,
                        **form,
                    )
                )
        self.features = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        _, maps = run_with_taps(self.features, x, TAPS)
        return maps


def scale_channels(channels: int, width: float) -> int:
    """Round `width * channels` to a multiple of 8 that is at most a tenth below it."""
    exact = channels * width
    scaled = max(8, int(exact + 4) // 8 * 8)
    return scaled if scaled >= 0.9 * exact else scaled + 8
