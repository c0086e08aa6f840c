"""MobileNetV2 (arXiv:1801.04381), dilated for dense prediction as DeepLab does.

Parameter names are torchvision's, so its published ImageNet weights load as they are. As in the
DeepLab authors' code the last map is the one of 320 channels: the classifier's 1x1 convolution to
1280 (torchvision's `features.18`) is not part of the backbone.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.layers import ConvNormAct

# (expansion, channels, repeats, stride): Table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

# The last block at each stride of the plain network: where the maps are taken.
TAPS = {1: "c1", 3: "c2", 6: "c3", 13: "c4", 17: "c5"}


TENSORFLOW_EPS = 1e-3


def _scaled(channels: int, width: float) -> int:
    """The multiple of 8 next to `width` times the channels, at most a tenth below it."""
    wanted = channels * width
    scaled = max(8, int(wanted + 4) // 8 * 8)
    return scaled if scaled >= 0.9 * wanted else scaled + 8


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation; shortcut where shapes agree."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        stride: int,
        dilation: int,
        eps: float = 1e-5,
        tensorflow_padding: bool = False,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(
                ConvNormAct(in_channels, hidden, kernel_size=1, activation=nn.ReLU6, eps=eps)
            )
        project = ConvNormAct(hidden, out_channels, kernel_size=1, activation=None, eps=eps)
        self.conv = nn.Sequential(
            *layers,
            ConvNormAct(
                hidden,
                hidden,
                stride=stride,
                dilation=dilation,
                groups=hidden,
                activation=nn.ReLU6,
                eps=eps,
                tensorflow_padding=tensorflow_padding,
            ),
            *project,
        )
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.shortcut else out


class MobileNetV2(nn.Module):
    """(B, 3, H, W) to maps c1..c5 of 16, 24, 32, 96 and 320 channels at strides 2, 4, 8, 16 and 32.

    No stride passes `output_stride` (8, 16 or 32): a block that would pass it keeps stride 1, and
    the convolutions after it are dilated instead. The block itself keeps the rate it had, so that
    the dilated maps contain the strided ones at every other position.

    tensorflow: the form of the authors' own weights, with TensorFlow's padding and a larger eps of
    batch normalization. width: scales the channels, to multiples of 8 (section 6.1, "width
    multiplier"). Raises InputError for one that is not above 0.
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
        if not 0 < width <= 4:
            raise InputError(f"width {width:g}: allowed are above 0 to 4")
        eps = TENSORFLOW_EPS if tensorflow else 1e-5
        channels, reached, dilation = _scaled(32, width), 2, 1
        blocks: list[nn.Module] = [
            ConvNormAct(
                in_channels,
                channels,
                stride=2,
                activation=nn.ReLU6,
                eps=eps,
                tensorflow_padding=tensorflow,
            )
        ]
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        for expansion, base, repeats, stride in STAGES:
            out_channels = _scaled(base, width)
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                next_dilation = dilation
                if reached * step > output_stride:
                    next_dilation, step = dilation * step, 1
                blocks.append(
                    InvertedResidual(
                        channels,
                        out_channels,
                        expansion=expansion,
                        stride=step,
                        dilation=dilation,
                        eps=eps,
                        tensorflow_padding=tensorflow,
                    )
                )
                channels, dilation, reached = out_channels, next_dilation, reached * step
                tap = TAPS.get(len(blocks) - 1)
                if tap is not None:
                    self.channels[tap] = channels
                    self.strides[tap] = reached
        self.features = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {}
        for number, block in enumerate(self.features):
            x = block(x)
            if number in TAPS:
                maps[TAPS[number]] = x
        return maps
