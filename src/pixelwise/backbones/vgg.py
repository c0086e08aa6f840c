"""VGG16 (arXiv:1409.1556) with its fully connected layers as convolutions, as FCN casts it.

Parameter names are torchvision's, so its published ImageNet weights load once the two fully
connected layers are reshaped to kernels. The last layer, to 1000 classes, is not part of it.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.layers import Coordinates

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
        width: float = 1.0,
        padding: int = 100,
        ceil_mode: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        self.coordinates: dict[str, Coordinates] = {}
        self.ceil_mode = ceil_mode
        layers: list[nn.Module] = []
        self.taps: dict[int, str] = {}
        channels = 3
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
            nn.Dropout(dropout),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self._describe("c5", hidden, [*layers, self.classifier])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

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
        if min(x.shape[2:]) < 7:
            raise InputError(
                f"image of {height}x{width}: is too small for fc6 with ceil_mode "
                f"{self.ceil_mode} and this padding: enlarge it"
            )
        maps["c5"] = self.classifier(x)
        return maps


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))
