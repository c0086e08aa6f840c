"""FCN (arXiv:1411.4038): class scores at stride 32, finer ones added, upsampled to the image.

The networks of the authors' reference code (voc-fcn32s, 16s, 8s, 8s-atonce and voc-fcn-alexnet), in
which every image size comes out at its own size: maps are laid upon each other by the coordinates
of their layers, and what the padding added is cropped. FCN-GoogLeNet was never published beyond its
row in table 1; here it is made in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pixelwise.backbones.alexnet import AlexNet, CaffeNet
from pixelwise.backbones.googlenet import GoogLeNet
from pixelwise.backbones.vgg import VGG16
from pixelwise.errors import InputError
from pixelwise.layers import Coordinates, crop, make_upsampling
from pixelwise.models.segmenter import Segmenter

EIGHT_LAYERS: dict[str, type[AlexNet] | type[CaffeNet]] = {"caffenet": CaffeNet, "alexnet": AlexNet}
AT_ONCE = {"c4": 0.01, "c3": 0.0001}


class FCNHead(nn.Module):
    """Scores of c5, doubled and added to those of a finer map, skip by skip (figure 3).

    skips: maps to add, from coarse to fine, with the number that each is multiplied by before it
    is scored: 1, or less where all are trained at once. All scores start at zero (section 4.3), so
    that a network with a new skip begins with the result that it had without.
    kernel_size: of the last upsampling, whose stride is that of the finest map.
    coordinates: where the maps lie; None crops the middle instead, for pools that round down.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        *,
        num_classes: int,
        coordinates: Mapping[str, Coordinates] | None,
        skips: Mapping[str, float] | None = None,
        upsampling: str = "frozen",
        kernel_size: int | None = None,
    ) -> None:
        super().__init__()
        self.scales = dict(skips or {})
        self.score = _zero_scores(channels["c5"], num_classes)
        self.skips = nn.ModuleDict()
        self.doubling = nn.ModuleDict()
        self.offsets: dict[str, int | None] = dict.fromkeys((*self.scales, "image"))
        here = coordinates["c5"] if coordinates else Coordinates()
        stride = strides["c5"]
        for name in self.scales:
            self.skips[name] = _zero_scores(channels[name], num_classes)
            self.doubling[name] = make_upsampling(upsampling, num_classes, kernel_size=4, stride=2)
            here = here.after(self.doubling[name])
            if coordinates:
                self.offsets[name] = coordinates[name].crop_to(here)
            stride = strides[name]
        self.upsampling = make_upsampling(
            upsampling, num_classes, kernel_size=kernel_size or 2 * stride, stride=stride
        )
        if coordinates:
            self.offsets["image"] = here.after(self.upsampling).crop_to(Coordinates())

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.score(features["c5"])
        for name, scale in self.scales.items():
            scores = self.doubling[name](scores)
            finer = self.skips[name](features[name] * scale)
            size = (scores.shape[2], scores.shape[3])
            scores = scores + crop(finer, offset=self.offsets[name], size=size)
        return scores

    def upsample(self, scores: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Scores of the finest map to logits of the image's `size` (height, width)."""
        return crop(self.upsampling(scores), offset=self.offsets["image"], size=size)


def _zero_scores(channels: int, num_classes: int) -> nn.Conv2d:
    score = nn.Conv2d(channels, num_classes, 1)
    nn.init.zeros_(score.weight)
    assert score.bias is not None
    nn.init.zeros_(score.bias)
    return score


def fcn32s(
    *,
    num_classes: int,
    in_channels: int = 3,
    upsampling: str = "frozen",
    ceil_mode: bool = True,
    width: float = 1.0,
) -> Segmenter:
    """FCN-32s on VGG16, with random weights.

    upsampling: "frozen" bilinear kernels as in the reference code, "learned" ones that start so, or
    "interpolate", the same away from the border. ceil_mode: False makes pools round down, as
    textbook ports do, and then crops the middle. width: scales the channels of VGG16.
    Raises InputError for another upsampling.
    """
    return _on_vgg16({}, num_classes, in_channels, upsampling, ceil_mode, width)


def fcn16s(
    *,
    num_classes: int,
    in_channels: int = 3,
    upsampling: str = "frozen",
    ceil_mode: bool = True,
    width: float = 1.0,
) -> Segmenter:
    """FCN-16s: FCN-32s and the scores of pool4. Arguments as for `fcn32s`."""
    return _on_vgg16({"c4": 1.0}, num_classes, in_channels, upsampling, ceil_mode, width)


def fcn8s(
    *,
    num_classes: int,
    in_channels: int = 3,
    upsampling: str = "frozen",
    ceil_mode: bool = True,
    width: float = 1.0,
) -> Segmenter:
    """FCN-8s: FCN-16s and the scores of pool3. Arguments as for `fcn32s`."""
    return _on_vgg16({"c4": 1.0, "c3": 1.0}, num_classes, in_channels, upsampling, ceil_mode, width)


def fcn8s_atonce(
    *,
    num_classes: int,
    in_channels: int = 3,
    upsampling: str = "frozen",
    ceil_mode: bool = True,
    width: float = 1.0,
) -> Segmenter:
    """FCN-8s with skips scaled by 0.01 and 0.0001, so that all of it can be trained at once."""
    return _on_vgg16(AT_ONCE, num_classes, in_channels, upsampling, ceil_mode, width)


def fcn_alexnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "caffenet",
    upsampling: str = "frozen",
    width: float = 1.0,
) -> Segmenter:
    """FCN-AlexNet, whose kernels of 63 with stride 32 set its scores on whole pixels.

    backbone: "caffenet", as in the paper, or "alexnet", torchvision's. upsampling: "frozen" or
    "learned". Raises InputError for others.
    """
    if backbone not in EIGHT_LAYERS:
        raise InputError(f"backbone {backbone!r}: allowed are {', '.join(EIGHT_LAYERS)}")
    features = EIGHT_LAYERS[backbone](in_channels=in_channels, width=width)
    return _at_stride_32(features, num_classes, upsampling)


def fcn_googlenet(
    *, num_classes: int, in_channels: int = 3, upsampling: str = "frozen"
) -> Segmenter:
    """FCN-GoogLeNet: scores of the last inception. Its kernels are 63 wide, as FCN-AlexNet's, since
    64 would set the scores between pixels. Arguments as for `fcn_alexnet`."""
    return _at_stride_32(GoogLeNet(in_channels=in_channels), num_classes, upsampling)


def _at_stride_32(
    backbone: AlexNet | CaffeNet | GoogLeNet, num_classes: int, upsampling: str
) -> Segmenter:
    head = FCNHead(
        backbone.channels,
        backbone.strides,
        num_classes=num_classes,
        coordinates=backbone.coordinates,
        upsampling=upsampling,
        kernel_size=63,
    )
    return Segmenter(backbone, head)


def _on_vgg16(
    skips: Mapping[str, float],
    num_classes: int,
    in_channels: int,
    upsampling: str,
    ceil_mode: bool,
    width: float,
) -> Segmenter:
    backbone = VGG16(in_channels=in_channels, width=width, ceil_mode=ceil_mode)
    head = FCNHead(
        backbone.channels,
        backbone.strides,
        num_classes=num_classes,
        coordinates=backbone.coordinates if ceil_mode else None,
        skips=skips,
        upsampling=upsampling,
    )
    return Segmenter(backbone, head)
