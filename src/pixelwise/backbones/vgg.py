"""VGG16 (arXiv:1409.1556), with its fully connected layers as convolutions, for FCN and DeepLab.

Parameter names are torchvision's, so its published ImageNet weights load once the two fully
connected layers are reshaped to kernels. The last layer, with the 1000 ImageNet classes, is left
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.backbones.backbone import Backbone, initialize_convolutions, run_with_taps
from pixelwise.errors import InputError
from pixelwise.layers import Coordinates, Dropout

# Configuration D of table 1: (channels, number of 3x3 convolutions) per stage; a pool ends a stage.
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
FC_CHANNELS = 4096


class VGG16(Backbone):
    """VGG16 as FCN uses it: maps c1..c4 after pool1..pool4, and c5 after fc7.

    The maps have 64, 128, 256, 512 and 4096 channels at strides 2, 4, 8, 16 and 32. The first
    convolution is padded by 100 so that the unpadded 7x7 fc6 has an output for every image.

    Args:
        in_channels: Number of image channels.
        width: Multiplier of all channel numbers.
        padding: Padding of the first convolution.
        ceil_mode: Round the size of pools up, as Caffe does. False rounds down, as PyTorch does by
            default; images must then be 26x26 or larger.

    Attributes:
        coordinates: Where the positions of each map lie in the image.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        width: float = 1.0,
        padding: int = 100,
        ceil_mode: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.strides = {}, {}
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
                self._add_map(f"c{number}", channels, layers)
        self.features = nn.Sequential(*layers)
        hidden = _scaled(FC_CHANNELS, width)
        self.classifier = fully_connected(nn.Conv2d(channels, hidden, 7))
        self._add_map("c5", hidden, [*layers, self.classifier])
        initialize_convolutions(self)

    def _add_map(self, name: str, channels: int, layers: list[nn.Module]) -> None:
        self.channels[name] = channels
        self.coordinates[name] = Coordinates().after(*layers)
        self.strides[name] = int(self.coordinates[name].scale)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pool5, maps = run_with_taps(self.features, x, self.taps)
        maps["c5"] = self.fc7(pool5, image=(x.shape[2], x.shape[3]))
        return maps

    def fc7(self, pool5: Tensor, *, image: tuple[int, int]) -> Tensor:
        """Compute c5 from the output of pool5.

        Args:
            pool5: (B, 512, h, w), before scaling by `width`.
            image: Size (height, width) of the image, for the error message.

        Raises:
            InputError: If pool5 is smaller than the 7x7 kernel of fc6.
        """
        if min(pool5.shape[2:]) < 7:
            height, width = image
            raise InputError(
                f"image of {height}x{width}: is too small for fc6 with ceil_mode "
                f"{self.ceil_mode} and padding {self.padding}: upsample the image"
            )
        c5: Tensor = self.classifier(pool5)
        return c5


class AtrousVGG16(Backbone):
    """VGG16 as DeepLab uses it (arXiv:1412.7062, section 3.1), at stride 8.

    Pools have 3x3 kernels with padding 1. pool4 and pool5 have stride 1, and the convolutions of
    stage 5 have dilation 2. Every field of view is an fc6 with the given kernel and dilation and a
    1x1 fc7 on top of pool5.

    Maps are c0, the padded image; c1..c4 after pool1..pool4; and c5, the concatenation of all fc7.
    The image is first padded with zeros, its mean, at the bottom and right border to 8k + 1 pixels,
    as the authors pad theirs to 513. Position i of each map is then centered on pixel stride * i.

    Args:
        fields: (kernel_size, dilation) of each field of view.
        hidden: Number of channels of every fc6 and fc7.
        average_pool: Average over 3x3 before fc6, as the authors' LargeFOV does.
        in_channels: Number of image channels.
        width: Multiplier of the channels of the convolution stages.

    Raises:
        InputError: If a field of view is not valid.
    """

    def __init__(
        self,
        *,
        fields: Sequence[tuple[int, int]] = ((3, 12),),
        hidden: int = 1024,
        average_pool: bool = True,
        in_channels: int = 3,
        width: float = 1.0,
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
            fully_connected(_field_of_view(channels, hidden, kernel_size, rate))
            for kernel_size, rate in fields
        )
        self.channels["c5"] = hidden * len(self.classifiers)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        # -(side - 1) % 8 without a remainder, which exporters do not support for dynamic sizes.
        bottom, right = ((side + 6) // 8 * 8 - (side - 1) for side in x.shape[2:])
        image = F.pad(x, (0, right, 0, bottom))
        pool5, maps = run_with_taps(self.features, image, self.taps)
        pool5 = self.average(pool5)
        maps["c0"] = image
        maps["c5"] = torch.cat([classifier(pool5) for classifier in self.classifiers], dim=1)
        return maps


def fully_connected(fc6: nn.Conv2d) -> nn.Sequential:
    """Append ReLU, dropout and a 1x1 fc7, also with ReLU and dropout, to the convolution fc6."""
    return nn.Sequential(
        fc6,
        nn.ReLU(inplace=True),
        Dropout(0.5),
        nn.Conv2d(fc6.out_channels, fc6.out_channels, 1),
        nn.ReLU(inplace=True),
        Dropout(0.5),
    )


def _field_of_view(channels: int, hidden: int, kernel_size: int, rate: int) -> nn.Conv2d:
    """The fc6 of a field of view; it keeps the size of the map."""
    if min(kernel_size, rate, hidden) < 1:
        raise InputError(
            f"field of view with kernel_size {kernel_size}, rate {rate} and {hidden} channels: "
            "all must be 1 or more"
        )
    if (kernel_size - 1) * rate % 2:
        raise InputError(
            f"field of view with kernel_size {kernel_size} and rate {rate}: its center lies "
            "between two positions: use an odd kernel_size or an even rate"
        )
    padding = (kernel_size - 1) * rate // 2
    return nn.Conv2d(channels, hidden, kernel_size, padding=padding, dilation=rate)


def _scaled(channels: int, width: float) -> int:
    if not 0 < width < inf:
        raise InputError(f"width {width}: must be above 0; 1 gives the channels of the paper")
    return max(1, round(channels * width))
