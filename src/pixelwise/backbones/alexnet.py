"""AlexNet, in the two forms that have published weights, fully connected layers as convolutions.

`CaffeNet` is the one of the FCN paper: two groups in some convolutions, as once on two GPUs, and
local response normalization after the pools (the paper on AlexNet normalizes before them).
`AlexNet` is torchvision's, from "One weird trick" (arXiv:1404.5997), with its parameter names:
fewer channels, no groups, no normalization. The last layer, to 1000 classes, is part of neither.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.layers import Coordinates, Dropout


class _EightLayers(nn.Module):
    """Layers in `features` up to pool5 and in `classifier` up to fc7; maps after pool1, pool2 and
    fc7 as c3, c4 and c5, at strides 8, 16 and 32."""

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier
        pools = [n for n, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
        self.taps = {pools[0]: "c3", pools[1]: "c4"}
        self.channels: dict[str, int] = {}
        self.coordinates: dict[str, Coordinates] = {}
        here, channels = Coordinates(), 0
        for number, layer in enumerate([*features, *classifier]):
            here = here.after(layer)
            if isinstance(layer, nn.Conv2d):
                channels = layer.out_channels
            if number in self.taps:
                self.channels[self.taps[number]] = channels
                self.coordinates[self.taps[number]] = here
        self.channels["c5"], self.coordinates["c5"] = channels, here
        self.strides = {name: int(place.scale) for name, place in self.coordinates.items()}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {}
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                maps[self.taps[number]] = x
        maps["c5"] = self.classifier(x)
        return maps


class CaffeNet(_EightLayers):
    """(B, 3, H, W) to maps c3, c4 and c5 of 96, 256 and 4096 channels, for every image size: the
    first convolution is padded by 100 and pools round up. `width` scales the channels."""

    def __init__(self, *, in_channels: int = 3, width: float = 1.0, padding: int = 100) -> None:
        one, two, three, hidden = (2 * max(1, round(w * width / 2)) for w in (96, 256, 384, 4096))
        features = nn.Sequential(
            nn.Conv2d(in_channels, one, 11, stride=4, padding=padding),
            nn.ReLU(inplace=True),
            _pool(),
            nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75),
            nn.Conv2d(one, two, 5, padding=2, groups=2),
            nn.ReLU(inplace=True),
            _pool(),
            nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75),
            nn.Conv2d(two, three, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(three, three, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(three, two, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            _pool(),
        )
        classifier = nn.Sequential(
            nn.Conv2d(two, hidden, 6),
            nn.ReLU(inplace=True),
            Dropout(0.5),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            Dropout(0.5),
        )
        super().__init__(features, classifier)


class AlexNet(_EightLayers):
    """(B, 3, H, W) to maps c3, c4 and c5 of 64, 192 and 4096 channels, for every image size, as
    `CaffeNet`."""

    def __init__(self, *, in_channels: int = 3, width: float = 1.0, padding: int = 100) -> None:
        one, two, three, four, hidden = (
            max(1, round(w * width)) for w in (64, 192, 384, 256, 4096)
        )
        features = nn.Sequential(
            nn.Conv2d(in_channels, one, 11, stride=4, padding=padding),
            nn.ReLU(inplace=True),
            _pool(),
            nn.Conv2d(one, two, 5, padding=2),
            nn.ReLU(inplace=True),
            _pool(),
            nn.Conv2d(two, three, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(three, four, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(four, four, 3, padding=1),
            nn.ReLU(inplace=True),
            _pool(),
        )
        classifier = nn.Sequential(
            Dropout(0.5),
            nn.Conv2d(four, hidden, 6),
            nn.ReLU(inplace=True),
            Dropout(0.5),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
        )
        super().__init__(features, classifier)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
