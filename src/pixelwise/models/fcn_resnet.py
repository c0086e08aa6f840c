"""FCN on ResNet: the textbook version at stride 32, and torchvision's, dilated to stride 8.

Neither is the network of a paper: FCN (arXiv:1411.4038) is older than ResNet (arXiv:1512.03385).
These two are what most people today know as FCN.
"""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.backbones import Backbone, create_backbone
from pixelwise.errors import InputError
from pixelwise.layers import BatchNorm2d, Dropout, crop, make_upsampling
from pixelwise.models.segmenter import Segmenter


class FCN32sHead(nn.Module):
    """Score c5 and upsample by a transposed convolution with kernel 64, stride 32, padding 16.

    Args:
        channels: Number of channels of c5.
        num_classes: Number of output channels.
        upsampling: Kind of the upsampling layer, a key of `layers.UPSAMPLING`.
    """

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
        """Upsample the scores to logits of the image's `size` (height, width).

        The upsampled scores start at the image's upper left corner and have the next multiple of
        32 as their size; the rest is cropped at the bottom and the right.
        """
        return crop(self.upsampling(scores), offset=0, size=size)


class FCNHead(nn.Sequential):
    """Head of torchvision's FCN, also used as auxiliary head.

    3x3 convolution to a quarter of the channels, batch norm, ReLU, dropout 0.1, 1x1 convolution to
    the classes.

    Args:
        channels: Number of channels of the map.
        num_classes: Number of output channels.
        source: Name of the map to use, such as "c5".
    """

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


def make_auxiliary(backbone: Backbone, *, num_classes: int) -> FCNHead:
    """Return a second head, on the map of a backbone that is meant for it."""
    source = backbone.auxiliary_map
    return FCNHead(backbone.channels[source], num_classes=num_classes, source=source)


def fcn_resnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "resnet50",
    upsampling: str = "learned",
) -> Segmenter:
    """The textbook FCN on a ResNet, with random weights.

    Args:
        num_classes: Number of classes.
        in_channels: Number of image channels.
        backbone: "resnet18", "resnet34", "resnet50", "resnet101" or "resnet152", or timm/NAME.
        upsampling: "learned" kernels that start bilinear, "frozen" bilinear kernels, or
            "interpolate".

    Raises:
        InputError: If `backbone` or `upsampling` is not allowed.
    """
    if not backbone.startswith(("resnet", "timm/")):
        raise InputError(f"backbone {backbone!r}: must be a ResNet, such as resnet50, or timm/NAME")
    features = create_backbone(backbone, output_stride=32, in_channels=in_channels)
    head = FCN32sHead(features.channels["c5"], num_classes=num_classes, upsampling=upsampling)
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

    Args:
        num_classes: Number of classes.
        in_channels: Number of image channels.
        backbone: A key of `backbones.BACKBONES`; torchvision has ResNets.
        output_stride: Stride of the logits before upsampling: 8, 16 or 32.
        auxiliary: Add a second head on an earlier map, whose loss helps training.

    Raises:
        InputError: If `backbone` or `output_stride` is not allowed.
    """
    features = create_backbone(backbone, output_stride=output_stride, in_channels=in_channels)
    head = FCNHead(features.channels["c5"], num_classes=num_classes, source="c5")
    second = make_auxiliary(features, num_classes=num_classes) if auxiliary else None
    return Segmenter(features, head, auxiliary=second)
