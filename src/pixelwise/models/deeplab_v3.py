"""DeepLabV3 (arXiv:1706.05587): dilated ResNets, with context in parallel (ASPP) or in cascade.

Rates are those for output stride 16 and are doubled at 8 (section 3.3). The stages before the last
are dilated as in torchvision; the last has the paper's unit rates, the multi-grid (section 3.2.1).
torchvision's own DeepLabV3 is the same with other numbers: see `deeplab_v3`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pixelwise.backbones import Backbone, create_backbone
from pixelwise.backbones.resnet import BLOCKS, Bottleneck
from pixelwise.errors import InputError
from pixelwise.layers import ASPP, ConvNormAct
from pixelwise.models.fcn_resnet import NarrowHead
from pixelwise.models.segmenter import Segmenter

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
MULTI_GRID = (1, 2, 4)  # with ASPP: table 5
CASCADE_GRID = (1, 2, 1)  # in cascade: table 3
BOTTLENECKS = tuple(f"resnet{depth}" for depth in BLOCKS if depth >= 50)


class DeepLabV3Head(nn.Module):
    """ASPP on c5 (B, C5, H/os, W/os), then logits of the same size.

    separable: depthwise separable 3x3 convolutions in the ASPP, as DeepLabV3+ has them without its
    decoder. refine: one more 3x3 convolution before the classes, as in torchvision.
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
    """Copies of block4, the last stage, one behind the other on c5, each with twice the rate of the
    one before, then logits (figure 3b).

    rate: of block4. last_block: 4 for none, to 7 for three.
    """

    def __init__(self, channels: int, *, num_classes: int, rate: int, last_block: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential()
        for number in range(5, last_block + 1):
            rate *= 2
            self.blocks.add_module(
                f"block{number}",
                nn.Sequential(
                    *(
                        Bottleneck(
                            channels, channels // 4, stride=1, dilations=(rate * unit, rate * unit)
                        )
                        for unit in CASCADE_GRID
                    )
                ),
            )
        for module in self.blocks.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.classify(self.blocks(features["c5"]))
        return logits


def check_stride(network: str, output_stride: int) -> None:
    """Raises InputError for a stride whose rates the paper does not give."""
    if output_stride not in RATES:
        allowed = " and ".join(map(str, sorted(RATES)))
        raise InputError(f"output_stride {output_stride}: {network} has {allowed}")


def create_dilated(backbone: str, *, output_stride: int, multi_grid: bool, **form: Any) -> Backbone:
    """The backbone; one of bottlenecks with the multi-grid, if it is asked for. Others have no
    stage to put it in."""
    if multi_grid and backbone in BOTTLENECKS:
        form["multi_grid"] = MULTI_GRID
    return create_backbone(backbone, output_stride=output_stride, **form)


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
    align_corners: bool = False,
) -> Segmenter:
    """DeepLabV3 with ASPP and random weights.

    output_stride: 16, or 8 for a denser, slower map with doubled rates. multi_grid: unit rates
    1, 2, 4 in the last stage of a ResNet with bottlenecks. dropout: behind the ASPP. refine: a 3x3
    convolution before the classes. auxiliary: a second head on c4, whose loss helps in training.
    align_corners: in every resize, as in the authors' code.
    torchvision's: output_stride 8, multi_grid False, dropout 0.5, refine and auxiliary True.
    Raises InputError for another stride, and a dropout that is no probability.
    """
    check_stride("DeepLabV3", output_stride)
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout}: allowed are 0 to below 1")
    features = create_dilated(
        backbone, output_stride=output_stride, in_channels=in_channels, multi_grid=multi_grid
    )
    channels = features.channels
    head = DeepLabV3Head(
        channels["c5"],
        num_classes=num_classes,
        rates=RATES[output_stride],
        dropout=dropout,
        refine=refine,
    )
    second = NarrowHead(channels["c4"], num_classes=num_classes, source="c4") if auxiliary else None
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

    last_block: 7 for block5, block6 and block7 behind the ResNet's block4; 4 for none of them.
    align_corners: as for `deeplab_v3`.
    Raises InputError for another stride or block, and a backbone without bottlenecks.
    """
    check_stride("DeepLabV3", output_stride)
    if backbone not in BOTTLENECKS:
        raise InputError(f"backbone {backbone!r}: the cascade has {', '.join(BOTTLENECKS)}")
    if not 4 <= last_block <= 7:
        raise InputError(f"last_block {last_block}: allowed are 4 to 7")
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
