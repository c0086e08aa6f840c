"""VGG16 (arXiv:1409.1556) with its fully connected layers as convolutions, as FCN and DeepLab cast
it.

Parameter names are torchvision's, so its published ImageNet weights load once the two fully
connected layers are reshaped to kernels. The last layer, to 1000 classes, is not part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.layers import Coordinates, Dropout

# Configuration D of the paper, table 1: 3x3 convolutions by stage, a pool after each stage.
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
FC_CHANNELS = 4096


class VGG16(nn.Module):
    """(B, 3, H, W) to maps c1..c4 after pool1..pool4, of 64, 128, 256 and 512 channels at strides
    2, 4, 8 and 16, and c5, which is fc7: 4096 channels at stride 32.

    The first convolution is padded by 100, so that the 7x7 fc6, which is not padded, finds a map
    for every image. `ceil_mode`: pools round sizes up, as Caffe's do; False is PyTorch's habit, and
    then images have to be 26x26 or larger. `width` scales every number of channels.
    `coordinates` says where each map lies in the image.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        width: float = 1.0,
        padding: int = 100,
        ceil_mode: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        self.coordinates: dict[str, Coordinates] = {}
        self.padding = padding
        self.ceil_mode = ceil_mode
        layers: list[nn.Module] = []
        self.taps: dict[int, str] = {}
        channels = in_channels
        for number, (base, repeats) in enumerate(STAGES, start=1):
            out_channels = _scaled(base, width)
            for _ in range(repeats):
                pad = 1 if layers else padding
                layers += [nn.Conv2d(channels, out_channels, 3, padding=pad), nn.ReLU(inplace=True)]
                channels = out_channels
            layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=ceil_mode))
            if number < 5:
                self.taps[len(layers) - 1] = f"c{number}"
                self._describe(f"c{number}", channels, layers)
        self.features = nn.Sequential(*layers)
        hidden = _scaled(FC_CHANNELS, width)
        self.classifier = nn.Sequential(
            nn.Conv2d(channels, hidden, 7),
            nn.ReLU(inplace=True),
            Dropout(dropout),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            Dropout(dropout),
        )
        self._describe("c5", hidden, [*layers, self.classifier])
        _initialize(self)

    def _describe(self, name: str, channels: int, layers: list[nn.Module]) -> None:
        self.channels[name] = channels
        self.coordinates[name] = Coordinates().after(*layers)
        self.strides[name] = int(self.coordinates[name].scale)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        height, width = x.shape[2:]
        maps = {}
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                maps[self.taps[number]] = x
        maps["c5"] = self.fc7(x, image=(height, width))
        return maps

    def fc7(self, pool5: Tensor, *, image: tuple[int, int]) -> Tensor:
        """c5 from pool5. image: the size (height, width) that an error names.

        Raises InputError for a map smaller than fc6's window.
        """
        if min(pool5.shape[2:]) < 7:
            height, width = image
            raise InputError(
                f"image of {height}x{width}: is too small for fc6 with ceil_mode "
                f"{self.ceil_mode} and this padding: upsample it"
            )
        c5: Tensor = self.classifier(pool5)
        return c5


class AtrousVGG16(nn.Module):
    """VGG16 as DeepLab casts it (arXiv:1412.7062, section 3.1), at stride 8.

    Pools have windows of 3, padded by 1; pool4 and pool5 keep stride 1, and the convolutions of
    stage 5 have rate 2. On pool5 lie the fields of view: for each (kernel_size, rate) of `fields`
    an fc6 of that window and an fc7 of 1x1, of `hidden` channels each. `average_pool` puts a mean
    over 3x3 before them, as the authors' LargeFOV does. `width` scales the stages' channels.

    (B, 3, H, W) to the image itself as c0, c1..c4 after pool1..pool4, and c5, all fc7 side by side.
    The image is first padded with zeros, its mean, at the lower and right border to 8k + 1, as the
    authors pad theirs to 513: position i of each map then lies on pixel stride * i.

    Raises InputError for a field of view that makes no sense.
    """

    def __init__(
        self,
        *,
        fields: Sequence[tuple[int, int]] = ((3, 12),),
        hidden: int = 1024,
        average_pool: bool = True,
        in_channels: int = 3,
        width: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.channels = {"c0": in_channels}
        self.strides = {"c0": 1, "c1": 2, "c2": 4, "c3": 8, "c4": 8, "c5": 8}
        layers: list[nn.Module] = []
        self.taps: dict[int, str] = {}
        channels = in_channels
        for number, (base, repeats) in enumerate(STAGES, start=1):
            rate = 2 if number == 5 else 1
            for _ in range(repeats):
                conv = nn.Conv2d(channels, _scaled(base, width), 3, padding=rate, dilation=rate)
                layers += [conv, nn.ReLU(inplace=True)]
                channels = conv.out_channels
            layers.append(nn.MaxPool2d(3, stride=2 if number < 4 else 1, padding=1))
            if number < 5:
                self.taps[len(layers) - 1] = f"c{number}"
                self.channels[f"c{number}"] = channels
        self.features = nn.Sequential(*layers)
        self.average = nn.AvgPool2d(3, stride=1, padding=1) if average_pool else nn.Identity()
        self.classifiers = nn.ModuleList(
            _field_of_view(channels, hidden, kernel_size, rate, dropout)
            for kernel_size, rate in fields
        )
        self.channels["c5"] = hidden * len(self.classifiers)
        _initialize(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        # -(side - 1) % 8, by a division: exporters know no remainder of an open size
        below, right = ((side + 6) // 8 * 8 - (side - 1) for side in x.shape[2:])
        x = F.pad(x, (0, right, 0, below))
        maps = {"c0": x}
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                maps[self.taps[number]] = x
        x = self.average(x)
        maps["c5"] = torch.cat([classifier(x) for classifier in self.classifiers], dim=1)
        return maps


def _field_of_view(
    channels: int, hidden: int, kernel_size: int, rate: int, dropout: float
) -> nn.Sequential:
    if min(kernel_size, rate, hidden) < 1:
        raise InputError(
            f"field of view with kernel_size {kernel_size}, rate {rate} and {hidden} channels: "
            "all are 1 or more"
        )
    if (kernel_size - 1) * rate % 2:
        raise InputError(
            f"field of view with kernel_size {kernel_size} and rate {rate}: has its center "
            "between two positions: choose an odd kernel_size or an even rate"
        )
    padding = (kernel_size - 1) * rate // 2
    return nn.Sequential(
        nn.Conv2d(channels, hidden, kernel_size, padding=padding, dilation=rate),
        nn.ReLU(inplace=True),
        Dropout(dropout),
        nn.Conv2d(hidden, hidden, 1),
        nn.ReLU(inplace=True),
        Dropout(dropout),
    )


def _initialize(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            assert part.bias is not None
            nn.init.zeros_(part.bias)


def _scaled(channels: int, width: float) -> int:
    if not 0 < width < inf:
        raise InputError(f"width {width}: is above 0, and 1 for the paper's channels")
    return max(1, round(channels * width))
