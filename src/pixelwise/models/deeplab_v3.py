"""DeepLabV3 (arXiv:1706.05587): dilated ResNets, with context in parallel (ASPP) or in cascade.

The rates are given for output stride 16 and doubled at 8 (section 3.3). The stages before the last
are dilated as in torchvision; the last stage has the paper's unit rates, the multi-grid (section
3.2.1). torchvision's own DeepLabV3 is the same network with other numbers: see TORCHVISION.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pixelwise.backbones import Backbone, create_backbone
from pixelwise.backbones.backbone import initialize_convolutions
from pixelwise.backbones.resnet import BLOCKS, Bottleneck
from pixelwise.errors import InputError
from pixelwise.layers import ASPP, ConvNormAct
from pixelwise.models.fcn_resnet import make_auxiliary
from pixelwise.models.segmenter import Segmenter

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
MULTI_GRID = (1, 2, 4)  # with ASPP: table 5
CASCADE_GRID = (1, 2, 1)  # in cascade: table 3
BOTTLENECK_RESNETS = tuple(f"resnet{depth}" for depth in BLOCKS if depth >= 50)
# Options of torchvision's DeepLabV3, at output stride 8.
TORCHVISION = {"multi_grid": False, "dropout": 0.5, "refine": True, "auxiliary": True}


class DeepLabV3Head(nn.Module):
    """ASPP on c5 (B, C5, H/os, W/os), then logits of the same size.

    Args:
        channels: Number of channels of c5.
        num_classes: Number of output channels.
        rates: Dilation rates of the ASPP.
        separable: Use depthwise separable 3x3 convolutions in the ASPP, as DeepLabV3+ does without
            its decoder.
        dropout: Dropout probability after the ASPP.
        refine: Add a 3x3 convolution before the classifier, as torchvision does.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_classes: int,
        rates: tuple[int, ...],
        separable: bool = False,
        dropout: float = 0.1,
        refine: bool = False,
    ) -> None:
        super().__init__()
        self.context = ASPP(channels, 256, rates=rates, separable=separable, dropout=dropout)
        self.refine = ConvNormAct(256, 256) if refine else nn.Identity()
        self.classify = nn.Conv2d(256, num_classes, 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.classify(self.refine(self.context(features["c5"])))
        return logits


class CascadeHead(nn.Module):
    """Copies of block4, the last ResNet stage, in sequence on c5, then logits (figure 3b).

    Each copy has twice the rate of the one before.

    Args:
        channels: Number of channels of c5.
        num_classes: Number of output channels.
        rate: Dilation rate of block4.
        last_block: Number of the last copy, from 4 for no copies to 7 for three.
    """

    def __init__(self, channels: int, *, num_classes: int, rate: int, last_block: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential()
        for number in range(5, last_block + 1):
            rate *= 2
            block = nn.Sequential()
            for unit in CASCADE_GRID:
                dilations = (rate * unit, rate * unit)
                block.append(Bottleneck(channels, channels // 4, stride=1, dilations=dilations))
            self.blocks.add_module(f"block{number}", block)
        initialize_convolutions(self.blocks, mode="fan_out")
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.classify(self.blocks(features["c5"]))
        return logits


def check_output_stride(network: str, output_stride: int) -> None:
    """Raise InputError for an output stride for which the paper gives no rates."""
    if output_stride not in RATES:
        allowed = " or ".join(map(str, sorted(RATES)))
        raise InputError(f"output_stride {output_stride}: must be {allowed} for {network}")


def create_dilated(
    backbone: str, *, output_stride: int, multi_grid: bool, caffe: bool, **options: Any
) -> Backbone:
    """Create a backbone, with the multi-grid in its last stage if that has bottlenecks.

    Raises:
        InputError: If `caffe` is set for another backbone than a ResNet with bottlenecks.
    """
    if multi_grid and backbone in BOTTLENECK_RESNETS:
        options["multi_grid"] = MULTI_GRID
    if caffe:
        if backbone not in BOTTLENECK_RESNETS:
            allowed = ", ".join(BOTTLENECK_RESNETS)
            raise InputError(f"caffe {caffe}: is an option of {allowed}, not of {backbone}")
        options["caffe"] = True
    return create_backbone(backbone, output_stride=output_stride, **options)


def deeplab_v3(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "resnet101",
    output_stride: int = 16,
    multi_grid: bool = True,
    dropout: float = 0.1,
    refine: bool = False,
    auxiliary: bool = False,
    wide_rates: bool = False,
    caffe: bool = False,
    align_corners: bool = False,
) -> Segmenter:
    """DeepLabV3 with ASPP and random weights.

    Args:
        num_classes: Number of classes.
        in_channels: Number of image channels.
        backbone: A key of `backbones.BACKBONES`, or timm/NAME.
        output_stride: 16, or 8 for a denser and slower map with doubled rates.
        multi_grid: Use unit rates 1, 2, 4 in the last stage of a ResNet with bottlenecks.
        dropout: Dropout probability after the ASPP, from 0 to below 1.
        refine: Add a 3x3 convolution before the classifier.
        auxiliary: Add a second head on an earlier map, whose loss helps training.
        wide_rates: Use the rates of output stride 8 at 16, too, as torchvision does on MobileNetV3.
        caffe: Use a ResNet in the form of its authors and of DeepLab v2, with 50 or more layers;
            see `ResNet`. Weights by kazuto1011 need it.
        align_corners: Align corners in every resize, as the authors' code does.

    Raises:
        InputError: If an option is not allowed.
    """
    check_output_stride("DeepLabV3", output_stride)
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout}: must be 0 or more and below 1")
    features = create_dilated(
        backbone,
        output_stride=output_stride,
        in_channels=in_channels,
        multi_grid=multi_grid,
        caffe=caffe,
    )
    head = DeepLabV3Head(
        features.channels["c5"],
        num_classes=num_classes,
        rates=RATES[8 if wide_rates else output_stride],
        dropout=dropout,
        refine=refine,
    )
    second = make_auxiliary(features, num_classes=num_classes) if auxiliary else None
    return Segmenter(features, head, auxiliary=second, align_corners=align_corners)


def deeplab_v3_cascade(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "resnet101",
    output_stride: int = 16,
    last_block: int = 7,
    align_corners: bool = False,
) -> Segmenter:
    """DeepLabV3 with blocks in cascade instead of ASPP, and random weights (section 3.2).

    Args:
        num_classes: Number of classes.
        in_channels: Number of image channels.
        backbone: "resnet50", "resnet101" or "resnet152".
        output_stride: 16, or 8 for a denser and slower map with doubled rates.
        last_block: 7 for block5, block6 and block7 after the ResNet's block4; 4 for none of them.
        align_corners: Align corners in every resize, as the authors' code does.

    Raises:
        InputError: If an option is not allowed.
    """
    check_output_stride("DeepLabV3", output_stride)
    if backbone not in BOTTLENECK_RESNETS:
        allowed = ", ".join(BOTTLENECK_RESNETS)
        raise InputError(f"backbone {backbone!r}: must be one of {allowed} for the cascade")
    if not 4 <= last_block <= 7:
        raise InputError(f"last_block {last_block}: must be 4 to 7")
    features = create_backbone(
        backbone, output_stride=output_stride, in_channels=in_channels, multi_grid=CASCADE_GRID
    )
    head = CascadeHead(
        features.channels["c5"],
        num_classes=num_classes,
        rate=32 // output_stride,
        last_block=last_block,
    )
    return Segmenter(features, head, align_corners=align_corners)
