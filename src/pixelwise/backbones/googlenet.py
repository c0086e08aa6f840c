"""GoogLeNet (arXiv:1409.4842) without average pool and classifiers.

Layers and parameter names are torchvision's, so its published ImageNet weights load unchanged:
batch normalization follows each convolution, and 3x3 convolutions replace the 5x5 ones of the
paper. These weights expect images normalized with a mean and a std of 0.5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.backbones.backbone import Backbone, initialize_convolutions
from pixelwise.layers import BatchNorm2d, Coordinates

# Table 1, output channels of: 1x1; 3x3 reduction, 3x3; 5x5 reduction, 5x5; pool projection.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class BasicConv(nn.Module):
    """Convolution, batch normalization, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, pad: int
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=pad, bias=False
        )
        self.bn = BatchNorm2d(out_channels, eps=0.001)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class Inception(nn.Module):
    """Concatenate four branches that keep the size of the map (figure 2b)."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, project = widths
        self.branch1 = BasicConv(in_channels, one, 1, pad=0)
        self.branch2 = nn.Sequential(
            BasicConv(in_channels, reduce3, 1, pad=0), BasicConv(reduce3, three, 3, pad=1)
        )
        self.branch3 = nn.Sequential(
            BasicConv(in_channels, reduce5, 1, pad=0), BasicConv(reduce5, five, 3, pad=1)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True),
            BasicConv(in_channels, project, 1, pad=0),
        )
        self.out_channels = one + three + five + project

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], dim=1)


class GoogLeNet(Backbone):
    """GoogLeNet: maps c1..c5 with 64, 192, 480, 832 and 1024 channels, at strides 2 to 32.

    Args:
        in_channels: Number of image channels.
        padding: Padding of the first convolution. FCN uses 100, as in its other networks, so that
            there is a map for every image; the classifier has 3.

    Attributes:
        coordinates: Where the positions of each map lie in the image.
    """

    def __init__(self, *, in_channels: int = 3, padding: int = 100) -> None:
        super().__init__()
        self.conv1 = BasicConv(in_channels, 64, 7, stride=2, pad=padding)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = BasicConv(64, 64, 1, pad=0)
        self.conv3 = BasicConv(64, 192, 3, pad=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels = 192
        self.channels = {"c1": 64, "c2": 192}
        for name, widths in INCEPTIONS.items():
            inception = Inception(channels, widths)
            setattr(self, f"inception{name}", inception)
            channels = inception.out_channels
            self.channels[{"3": "c3", "4": "c4", "5": "c5"}[name[0]]] = channels
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        # Only conv1 and the pools change the coordinates.
        coordinates = Coordinates().after(self.conv1.conv)
        self.coordinates = {"c1": coordinates}
        for number in range(1, 5):
            coordinates = coordinates.after(getattr(self, f"maxpool{number}"))
            self.coordinates[f"c{number + 1}"] = coordinates
        self.strides = {name: int(of_map.scale) for name, of_map in self.coordinates.items()}
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {"c1": self.conv1(x)}
        maps["c2"] = self.conv3(self.conv2(self.maxpool1(maps["c1"])))
        x = self.maxpool2(maps["c2"])
        for name in INCEPTIONS:
            if name == "4a":
                maps["c3"], x = x, self.maxpool3(x)
            elif name == "5a":
                maps["c4"], x = x, self.maxpool4(x)
            x = getattr(self, f"inception{name}")(x)
        maps["c5"] = x
        return maps
