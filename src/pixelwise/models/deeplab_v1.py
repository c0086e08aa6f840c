"""DeepLab v1 (arXiv:1412.7062): VGG16 at stride 8, its fully connected layers a field of view.

Without the CRF that follows it. The field of view is given by numbers: LargeFOV's 3x3 window of
rate 12 with 1024 channels has the reach of the 7x7 one of rate 4 with 4096, at a sixth of the
parameters (table 2). Pools and upsampling are those of the authors' Caffe code.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pixelwise.backbones.vgg import AtrousVGG16
from pixelwise.layers import Dropout, upsample_from_pixels
from pixelwise.models.segmenter import Segmenter

STRIDE = 8


class DeepLabV1Head(nn.Module):
    """Scores of c5 (B, C5, H/8, W/8); with `multi_scale` those of five branches are added, from the
    image c0 and the first four pools c1..c4 (section 4.3, "MSc").

    There the paper concatenates the branches' maps to fc7 before the one layer of scores; as in the
    authors' code each is scored for itself here, which is the same sum.
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
        self.score = start_normal(nn.Conv2d(channels["c5"], num_classes, 1))
        self.branches = nn.ModuleDict()
        for name in ("c0", "c1", "c2", "c3", "c4") if multi_scale else ():
            step = STRIDE // strides[name]
            self.branches[name] = nn.Sequential(
                start_normal(nn.Conv2d(channels[name], 128, 3, stride=step, padding=1), std=0.001),
                nn.ReLU(inplace=True),
                Dropout(0.5),
                start_normal(nn.Conv2d(128, 128, 1), std=0.001),
                nn.ReLU(inplace=True),
                Dropout(0.5),
                start_normal(nn.Conv2d(128, num_classes, 1)),
            )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.score(features["c5"])
        for name, branch in self.branches.items():
            logits = logits + branch(features[name])
        return logits

    def upsample(self, logits: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Logits of the image's `size` (height, width)."""
        return upsample_from_pixels(logits, stride=STRIDE, size=size)


def start_normal(conv: nn.Conv2d, *, std: float = 0.01) -> nn.Conv2d:
    """The convolution as the authors start it: normal weights, no bias; the std is fc8's."""
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
    """DeepLab-LargeFOV, or with other numbers the paper's other fields of view; random weights.

    kernel_size, rate, hidden: the window of fc6, its rate, and the channels of fc6 and fc7.
    average_pool: a mean over 3x3 before fc6, which LargeFOV alone has. multi_scale: the MSc
    branches. width: scales the channels of VGG16's convolutions.
    Raises InputError for a field of view that makes no sense.
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
