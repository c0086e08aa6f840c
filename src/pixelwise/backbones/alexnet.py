"""AlexNet in the two forms with published weights, with fully connected layers as convolutions.

`CaffeNet` is the one of the FCN paper: some convolutions have two groups, as once on two GPUs, and
local response normalization follows the pools (the AlexNet paper normalizes before them).
`AlexNet` is torchvision's, from "One weird trick" (arXiv:1404.5997), with its parameter names:
fewer channels, no groups, no normalization. Both leave out the last layer with the 1000 ImageNet
classes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pixelwise.backbones.backbone import Backbone, initialize_convolutions, run_with_taps
from pixelwise.backbones.vgg import fully_connected
from pixelwise.layers import Coordinates, Dropout


class EightLayerNet(Backbone):
    """Base of both AlexNets: maps c3, c4 and c5 after pool1, pool2 and fc7, at strides 8, 16, 32.

    Args:
        features: The layers up to pool5.
        classifier: The layers from fc6 to fc7.

    Attributes:
        coordinates: Where the positions of each map lie in the image.
    """

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier
        pools = [n for n, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
        self.taps = {pools[0]: "c3", pools[1]: "c4"}
        last = len(features) + len(classifier) - 1
        self.channels = {}
        self.coordinates: dict[str, Coordinates] = {}
        coordinates, channels = Coordinates(), 0
        for number, layer in enumerate([*features, *classifier]):
            coordinates = coordinates.after(layer)
            if isinstance(layer, nn.Conv2d):
                channels = layer.out_channels
            name = "c5" if number == last else self.taps.get(number)
            if name is not None:
                self.channels[name] = channels
                self.coordinates[name] = coordinates
        self.strides = {name: int(of_map.scale) for name, of_map in self.coordinates.items()}
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pool5, maps = run_with_taps(self.features, x, self.taps)
        maps["c5"] = self.classifier(pool5)
        return maps


class CaffeNet(EightLayerNet):
    """AlexNet as published for Caffe: maps c3, c4 and c5 with 96, 256 and 4096 channels.

    It takes images of every size, because the first convolution is padded by 100 and pools round
    up.

    Args:
        in_channels: Number of image channels.
        width: Multiplier of all channel numbers.
        padding: Padding of the first convolution.
    """

    def __init__(self, *, in_channels: int = 3, width: float = 1.0, padding: int = 100) -> None:
        one, two, three, hidden = (2 * max(1, round(w * width / 2)) for w in (96, 256, 384, 4096))
        features = nn.Sequential(
            *_conv_relu(in_channels, one, 11, stride=4, padding=padding),
            _pool(),
            nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75),
            *_conv_relu(one, two, 5, padding=2, groups=2),
            _pool(),
            nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75),
            *_conv_relu(two, three, 3, padding=1),
            *_conv_relu(three, three, 3, padding=1, groups=2),
            *_conv_relu(three, two, 3, padding=1, groups=2),
            _pool(),
        )
        super().__init__(features, fully_connected(nn.Conv2d(two, hidden, 6)))


class AlexNet(EightLayerNet):
    """AlexNet of torchvision: maps c3, c4 and c5 with 64, 192 and 4096 channels.

    For arguments and image sizes see `CaffeNet`.
    """

    def __init__(self, *, in_channels: int = 3, width: float = 1.0, padding: int = 100) -> None:
        one, two, three, four, hidden = (
            max(1, round(w * width)) for w in (64, 192, 384, 256, 4096)
        )
        features = nn.Sequential(
            *_conv_relu(in_channels, one, 11, stride=4, padding=padding),
            _pool(),
            *_conv_relu(one, two, 5, padding=2),
            _pool(),
            *_conv_relu(two, three, 3, padding=1),
            *_conv_relu(three, four, 3, padding=1),
            *_conv_relu(four, four, 3, padding=1),
            _pool(),
        )
        classifier = nn.Sequential(
            Dropout(0.5), *_conv_relu(four, hidden, 6), Dropout(0.5), *_conv_relu(hidden, hidden, 1)
        )
        super().__init__(features, classifier)


def _conv_relu(
    in_channels: int, channels: int, kernel_size: int, **options: Any
) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, channels, kernel_size, **options), nn.ReLU(inplace=True)]


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
