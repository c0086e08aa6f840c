"""ResNet (arXiv:1512.03385), with stages dilated instead of strided where a finer map is wanted.

Parameter names are torchvision's, so its published ImageNet weights load as they are; as there,
the stride of a bottleneck lies in its 3x3 convolution, unless Caffe's form is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.layers import BatchNorm2d

# Blocks by stage: table 1 of the paper. From 50 layers on they are bottlenecks.
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
STAGE_CHANNELS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. The first has the stride and the rate so far, the
    second, which sees what the stride left, the rate from here on."""

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
    """1x1, 3x3 with the stride and the rate so far, 1x1 to four times the channels; a shortcut.

    `caffe`: the stride lies in the first 1x1 instead. The 3x3 then sees what the stride left, and
    has the rate from here on.
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


class ResNet(nn.Module):
    """(B, 3, H, W) to maps c1..c5 at strides 2, 4, 8, 16 and 32: of 64, 64, 128, 256 and 512
    channels with `depth` 18 and 34, the last four of them fourfold with 50, 101 and 152.

    No stride passes `output_stride` (8, 16 or 32): a stage that would pass it keeps stride 1 and
    is dilated. Its first block keeps the rate it had, as in torchvision, so that the dilated maps
    contain the strided ones at every other position.

    multi_grid: unit rates of the three bottlenecks of the last stage, which are multiplied by the
    stage's own (DeepLabV3, arXiv:1706.05587, section 3.2.1). The first is dilated with them, too.
    caffe: the form of the ResNet's authors and of DeepLab v2, with the stride of a bottleneck in
    its first 1x1 convolution and a pool that rounds up.

    Raises InputError where these are asked of a ResNet without bottlenecks, or where the last stage
    has not as many of them as there are unit rates.
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
        if (multi_grid or caffe) and depth < 50:
            raise InputError(
                f"ResNet-{depth}: has no bottlenecks for multi_grid or caffe: try 50 or 101"
            )
        if multi_grid and len(multi_grid) != BLOCKS[depth][-1]:
            raise InputError(f"multi_grid {multi_grid}: ResNet-{depth} needs {BLOCKS[depth][-1]}")
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
        width, reached, dilation = 64, 4, 1
        for number, (channels, repeats) in enumerate(
            zip(STAGE_CHANNELS, BLOCKS[depth], strict=True), start=1
        ):
            stride, before = (1 if number == 1 else 2), dilation
            if reached * stride > output_stride:
                stride, dilation = 1, dilation * stride
            rates = [(before, dilation)] + (repeats - 1) * [(dilation, dilation)]
            if number == 4 and multi_grid:
                rates = [(dilation * unit, dilation * unit) for unit in multi_grid]
            blocks = []
            for repeat, dilations in enumerate(rates):
                step = 1 if repeat else stride
                blocks.append(block(width, channels, stride=step, dilations=dilations))
                width = channels * expansion
            reached *= stride
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            self.channels[f"c{number + 1}"] = width
            self.strides[f"c{number + 1}"] = reached
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

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
