"""ResNet (arXiv:1512.03385), with dilated instead of strided stages for finer maps.

Parameter names are torchvision's, so its published ImageNet weights load unchanged. As in
torchvision the 3x3 convolution of a bottleneck has the stride, unless Caffe's form is requested.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from pixelwise.backbones.backbone import Backbone, DilationSchedule, initialize_convolutions
from pixelwise.errors import InputError
from pixelwise.layers import BatchNorm2d

# Number of blocks per stage: table 1 of the paper. ResNets with 50 or more layers have bottlenecks.
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
STAGE_CHANNELS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Args:
        in_channels: Number of input channels.
        channels: Number of output channels.
        stride: Stride of the first convolution.
        dilations: Dilations of the first convolution and of the second, which follows the stride.
    """

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, dilations: tuple[int, int]
    ) -> None:
        super().__init__()
        before, after = dilations
        self.conv1 = _conv3x3(in_channels, channels, stride=stride, dilation=before)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels, dilation=after)
        self.bn2 = BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.downsample(x)
        activated: Tensor = self.relu(out)
        return activated


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions to four times the channels, and a shortcut.

    Args:
        in_channels: Number of input channels.
        channels: Number of channels of the first two convolutions.
        stride: Stride of the 3x3 convolution.
        dilations: Dilations before and after the stride; the 3x3 convolution uses the first.
        caffe: Give the stride to the first 1x1 convolution instead. The 3x3 convolution then
            follows the stride and uses the second dilation.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        dilations: tuple[int, int],
        caffe: bool = False,
    ) -> None:
        super().__init__()
        before, after = dilations
        first, second, rate = (stride, 1, after) if caffe else (1, stride, before)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, stride=first, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels, stride=second, dilation=rate)
        self.bn2 = BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, 4 * channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out)) + self.downsample(x)
        activated: Tensor = self.relu(out)
        return activated


class ResNet(Backbone):
    """ResNet: (B, in_channels, H, W) to maps c1..c5.

    Strides are 2, 4, 8, 16 and 32 up to `output_stride`; further strides become dilation, as in
    torchvision. Channels are 64, 64, 128, 256 and 512 for depths 18 and 34. For depths 50, 101 and
    152, c2..c5 have four times as many.

    Args:
        depth: 18, 34, 50, 101 or 152.
        output_stride: Stride of c5 (8, 16 or 32).
        in_channels: Number of image channels.
        multi_grid: Unit rates of the three bottlenecks in the last stage, multiplied by the
            dilation of that stage (DeepLabV3, arXiv:1706.05587, section 3.2.1). The first
            bottleneck is also dilated with them.
        caffe: Use the form of the ResNet authors and of DeepLab v2: the stride of a bottleneck is
            in its first 1x1 convolution, and the pool rounds up.

    Raises:
        InputError: If `multi_grid` or `caffe` is set for a ResNet without bottlenecks, or
            `multi_grid` does not have one rate per bottleneck.
    """

    def __init__(
        self,
        *,
        depth: int,
        output_stride: int = 32,
        in_channels: int = 3,
        multi_grid: tuple[int, ...] = (),
        caffe: bool = False,
    ) -> None:
        super().__init__()
        self.form = "caffe" if caffe else "torchvision"
        if (multi_grid or caffe) and depth < 50:
            raise InputError(
                f"ResNet-{depth}: has no bottlenecks, which multi_grid and caffe need: use 50, "
                "101 or 152 layers"
            )
        if multi_grid and len(multi_grid) != BLOCKS[depth][-1]:
            raise InputError(
                f"multi_grid {multi_grid}: ResNet-{depth} needs {BLOCKS[depth][-1]} unit rates"
            )
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=caffe)
        block: Callable[..., nn.Module] = (
            BasicBlock if depth < 50 else partial(Bottleneck, caffe=caffe)
        )
        expansion = 1 if depth < 50 else 4
        self.channels = {"c1": 64}
        self.strides = {"c1": 2}
        in_channels = 64
        schedule = DilationSchedule(output_stride, stride=4)
        for number, (channels, repeats) in enumerate(
            zip(STAGE_CHANNELS, BLOCKS[depth], strict=True), start=1
        ):
            stride, before = schedule.step(1 if number == 1 else 2)
            after = schedule.dilation
            dilations = [(before, after)] + (repeats - 1) * [(after, after)]
            if number == 4 and multi_grid:
                dilations = [(after * unit, after * unit) for unit in multi_grid]
            blocks = []
            for pair in dilations:
                blocks.append(block(in_channels, channels, stride=stride, dilations=pair))
                in_channels, stride = channels * expansion, 1
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            self.channels[f"c{number + 1}"] = in_channels
            self.strides[f"c{number + 1}"] = schedule.stride
        initialize_convolutions(self, mode="fan_out")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {"c1": self.relu(self.bn1(self.conv1(x)))}
        x = self.maxpool(maps["c1"])
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
            maps[f"c{number + 1}"] = x
        return maps


def _conv3x3(in_channels: int, channels: int, *, stride: int = 1, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), BatchNorm2d(channels)
    )
