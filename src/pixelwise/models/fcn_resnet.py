"""FCN on ResNet: the plain one of textbooks at stride 32, and torchvision's, dilated to stride 8.

Neither is a paper's network: FCN (arXiv:1411.4038) came before ResNet (arXiv:1512.03385). They are
what most people meet under the name of FCN today.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.backbones import create_backbone
from pixelwise.errors import InputError
from pixelwise.layers import BatchNorm2d, Dropout, crop, make_upsampling
from pixelwise.models.segmenter import Segmenter


class PlainHead(nn.Module):
    """Scores of c5, upsampled by one transposed convolution 64/32 with padding 16."""

    def __init__(self, channels: int, *, num_classes: int, upsampling: str) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, num_classes, 1)
        nn.init.xavier_uniform_(self.score.weight)
        self.upsampling = make_upsampling(
            upsampling, num_classes, kernel_size=64, stride=32, padding=16
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.score(features["c5"])
        return scores

    def upsample(self, scores: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Logits of `size`. They come out at the next multiple of 32, and begin where the image
        begins: what is beyond its lower and right border is cropped."""
        return crop(self.upsampling(scores), offset=0, size=size)


class NarrowHead(nn.Sequential):
    """3x3 to a quarter of the channels, batch norm, ReLU, dropout 0.1, 1x1 to the classes: the head
    of torchvision's FCN, on the map named `source`."""

    def __init__(self, channels: int, *, num_classes: int, source: str) -> None:
        hidden = channels // 4
        super().__init__(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            Dropout(0.1),
            nn.Conv2d(hidden, num_classes, 1),
        )
        self.source = source

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        x = features[self.source]
        for layer in self:
            x = layer(x)
        return x


def fcn_resnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "resnet50",
    upsampling: str = "learned",
) -> Segmenter:
    """The textbook's FCN on a ResNet, with random weights.

    upsampling: "learned" from a bilinear start, "frozen", or "interpolate". Raises InputError for
    another, or another backbone.
    """
    _check(backbone)
    features = create_backbone(backbone, output_stride=32, in_channels=in_channels)
    head = PlainHead(features.channels["c5"], num_classes=num_classes, upsampling=upsampling)
    return Segmenter(features, head)


def fcn_resnet_dilated(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "resnet50",
    output_stride: int = 8,
    auxiliary: bool = True,
) -> Segmenter:
    """torchvision's FCN on a ResNet, with random weights.

    auxiliary: a second head on c4, whose loss helps in training. Raises InputError for another
    backbone or stride.
    """
    _check(backbone)
    features = create_backbone(backbone, output_stride=output_stride, in_channels=in_channels)
    channels = features.channels
    return Segmenter(
        features,
        NarrowHead(channels["c5"], num_classes=num_classes, source="c5"),
        auxiliary=(
            NarrowHead(channels["c4"], num_classes=num_classes, source="c4") if auxiliary else None
        ),
    )


def _check(backbone: str) -> None:
    if not backbone.startswith("resnet"):
        raise InputError(f"backbone {backbone!r}: is no resnet: try resnet50")
