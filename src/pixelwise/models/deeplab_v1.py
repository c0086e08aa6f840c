"""DeepLab v1 (arXiv:1412.7062): VGG16 at stride 8, with a dilated fc6 as its field of view.

The CRF that follows the network is in `pixelwise.crf`. The field of view is set by numbers:
LargeFOV's 3x3 kernel with rate 12 and 1024 channels covers as much as the 7x7 kernel with rate 4
and 4096 channels, with a sixth of the parameters (table 2). Pools and upsampling are as in the
authors' Caffe code.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pixelwise.backbones.vgg import AtrousVGG16
from pixelwise.layers import Dropout, upsample_from_pixels
from pixelwise.models.segmenter import Segmenter

STRIDE = 8


class DeepLabV1Head(nn.Module):
    """Score c5 (B, C5, H/8, W/8), optionally adding the scores of five finer maps.

    The paper concatenates the five branches and fc7 before a single score layer (section 4.3,
    "MSc"). As in the authors' code, each branch has its own score layer here, which gives the same
    sum.

    Args:
        channels: Number of channels of each backbone map, by name.
        strides: Stride of each backbone map, by name.
        num_classes: Number of output channels.
        multi_scale: Add branches for the image c0 and the first four pools c1..c4.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        *,
        num_classes: int,
        multi_scale: bool,
    ) -> None:
        super().__init__()
        self.score = init_normal(nn.Conv2d(channels["c5"], num_classes, 1))
        self.branches = nn.ModuleDict()
        for name in ("c0", "c1", "c2", "c3", "c4") if multi_scale else ():
            stride = STRIDE // strides[name]
            self.branches[name] = nn.Sequential(
                init_normal(nn.Conv2d(channels[name], 128, 3, stride=stride, padding=1), std=0.001),
                nn.ReLU(inplace=True),
                Dropout(0.5),
                init_normal(nn.Conv2d(128, 128, 1), std=0.001),
                nn.ReLU(inplace=True),
                Dropout(0.5),
                init_normal(nn.Conv2d(128, num_classes, 1)),
            )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.score(features["c5"])
        for name, branch in self.branches.items():
            logits = logits + branch(features[name])
        return logits

    def upsample(self, logits: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Upsample the logits to the image's `size` (height, width)."""
        return upsample_from_pixels(logits, stride=STRIDE, size=size)


def init_normal(conv: nn.Conv2d, *, std: float = 0.01) -> nn.Conv2d:
    """Initialize as the authors do: normal weights, zero biases. The default std is that of fc8."""
    nn.init.normal_(conv.weight, std=std)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def deeplab_v1(
    *,
    num_classes: int,
    in_channels: int = 3,
    kernel_size: int = 3,
    rate: int = 12,
    hidden: int = 1024,
    average_pool: bool = True,
    multi_scale: bool = False,
    width: float = 1.0,
) -> Segmenter:
    """DeepLab-LargeFOV by default, or another field of view of the paper, with random weights.

    Args:
        num_classes: Number of classes.
        in_channels: Number of image channels.
        kernel_size: Kernel of fc6.
        rate: Dilation rate of fc6.
        hidden: Number of channels of fc6 and fc7.
        average_pool: Average over 3x3 before fc6; only LargeFOV does.
        multi_scale: Add the MSc branches (section 4.3).
        width: Multiplier of the channels of VGG16's convolutions.

    Raises:
        InputError: If the field of view is not valid.
    """
    backbone = AtrousVGG16(
        fields=((kernel_size, rate),),
        hidden=hidden,
        average_pool=average_pool,
        in_channels=in_channels,
        width=width,
    )
    head = DeepLabV1Head(
        backbone.channels, backbone.strides, num_classes=num_classes, multi_scale=multi_scale
    )
    return Segmenter(backbone, head)
