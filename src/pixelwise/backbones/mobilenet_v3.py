"""MobileNetV3-Large (arXiv:1905.02244), dilated for dense prediction as in torchvision.

Parameter names are torchvision's, so its published ImageNet weights load unchanged. Unlike in
`MobileNetV2`, a block that gives up its stride is dilated itself, which torchvision's published
segmentation networks need.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.backbones.backbone import Backbone, DilationSchedule, run_with_taps
from pixelwise.backbones.mobilenet_v2 import scale_channels
from pixelwise.layers import ConvNormAct
from pixelwise.layers.aspp import image_mean

# (kernel, expanded channels, channels, squeeze-and-excitation, hard swish, stride): table 1.
BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)

# Index in `features` of each map. c3 is the first block at stride 8, not the last, since
# torchvision's published heads use it.
TAPS = {1: "c1", 3: "c2", 4: "c3", 12: "c4", 16: "c5"}

EPS = 1e-3


class SqueezeExcitation(nn.Module):
    """Scale each channel by a factor in 0..1 that depends on the means of all channels.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = scale_channels(channels // 4, 1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.relu(self.fc1(image_mean(x)))
        return x * nn.functional.hardsigmoid(self.fc2(hidden))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-and-excitation, 1x1 projection (section 5).

    A shortcut is added if input and output have the same shape in the network without dilation.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        *,
        kernel_size: int,
        activation: type[nn.Module],
        stride: int,
        dilation: int,
        squeeze: bool,
        shortcut: bool,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(
                ConvNormAct(in_channels, hidden, kernel_size=1, activation=activation, eps=EPS)
            )
        layers.append(
            ConvNormAct(
                hidden,
                hidden,
                kernel_size=kernel_size,
                stride=stride,
                dilation=dilation,
                groups=hidden,
                activation=activation,
                eps=EPS,
            )
        )
        if squeeze:
            layers.append(SqueezeExcitation(hidden))
        layers.append(ConvNormAct(hidden, out_channels, kernel_size=1, activation=None, eps=EPS))
        self.block = nn.Sequential(*layers)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return x + out if self.shortcut else out


class MobileNetV3Large(Backbone):
    """MobileNetV3-Large: images to maps c1 to c5 with 16, 24, 40, 112 and 960 channels.

    Strides are 2, 4, 8, 16 and 32 up to `output_stride`; further strides become dilation.

    Args:
        output_stride: Stride of c5 (8, 16 or 32).
        in_channels: Number of image channels.
    """

    auxiliary_map = "c3"

    def __init__(self, *, output_stride: int = 16, in_channels: int = 3) -> None:
        super().__init__()
        channels = 16
        self.features = nn.Sequential(
            ConvNormAct(in_channels, channels, stride=2, activation=nn.Hardswish, eps=EPS)
        )
        self.channels, self.strides = {}, {}
        schedule = DilationSchedule(output_stride, stride=2)
        for kernel_size, hidden, out_channels, squeeze, hard_swish, stride in BLOCKS:
            step, _ = schedule.step(stride)
            self.features.append(
                InvertedResidual(
                    channels,
                    hidden,
                    out_channels,
                    kernel_size=kernel_size,
                    activation=nn.Hardswish if hard_swish else nn.ReLU,
                    stride=step,
                    dilation=schedule.dilation,
                    squeeze=squeeze,
                    shortcut=stride == 1 and channels == out_channels,
                )
            )
            channels = out_channels
            self._record(channels, schedule.stride)
        last = 6 * channels
        self.features.append(
            ConvNormAct(channels, last, kernel_size=1, activation=nn.Hardswish, eps=EPS)
        )
        self._record(last, schedule.stride)

    def _record(self, channels: int, stride: int) -> None:
        """Note the channels and the stride of the block added last, if it is a map."""
        name = TAPS.get(len(self.features) - 1)
        if name is not None:
            self.channels[name], self.strides[name] = channels, stride

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        _, maps = run_with_taps(self.features, x, TAPS)
        return maps
