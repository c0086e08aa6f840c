"""FCN (arXiv:1411.4038): class scores at stride 32, refined by finer maps, upsampled to the image.

These are the networks of the authors' reference code: voc-fcn32s, 16s, 8s, 8s-atonce and
voc-fcn-alexnet. Their output has the size of the image for every image size: maps are aligned by
the coordinates of their layers, and what the padding added is cropped. FCN-GoogLeNet was never
published beyond its row in table 1; here it is built in the same way, on torchvision's GoogLeNet,
which has batch normalization, unlike the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.backbones.alexnet import AlexNet, CaffeNet
from pixelwise.backbones.googlenet import GoogLeNet
from pixelwise.backbones.vgg import VGG16
from pixelwise.errors import InputError
from pixelwise.layers import Coordinates, crop, make_upsampling
from pixelwise.models.segmenter import Segmenter

ALEXNETS: dict[str, type[AlexNet] | type[CaffeNet]] = {"caffenet": CaffeNet, "alexnet": AlexNet}

# The skips of each network: maps to add, from coarse to fine, with the factor of each map.
FCN_32S: dict[str, float] = {}
FCN_16S = {"c4": 1.0}
FCN_8S = {"c4": 1.0, "c3": 1.0}
# Small factors allow training all skips at once instead of stage by stage (voc-fcn8s-atonce).
FCN_8S_AT_ONCE = {"c4": 0.01, "c3": 0.0001}
# Pixels by which the upsampled scores may end before the image if pools round down, by the number
# of skips. If n = (H + 198) // 32 for H pixels, which are padded to H + 198, the scores cover
# 32n - 179 (FCN-32s), 32n - 171 (FCN-16s) and 32n - 167 (FCN-8s) of them.
FLOOR_EXTENSIONS = (12, 4, 0)


class FCNSkipHead(nn.Module):
    """Predict scores from c5, then repeatedly upsample 2x and add a finer map's scores (figure 3).

    All score layers start at zero (section 4.3), so a network with a new skip starts with the
    result of the network without it.

    Args:
        channels: Number of channels of each backbone map, by name.
        strides: Stride of each backbone map, by name.
        num_classes: Number of output channels.
        coordinates: Where each map lies in the image. They decide how maps are cropped.
        skips: Maps to add, from coarse to fine, with the factor that each map is multiplied by
            before it is scored.
        upsampling: Kind of the upsampling layers, a key of `layers.UPSAMPLING`.
        kernel_size: Kernel of the last upsampling, whose stride is that of the finest map. By
            default twice that stride.
        extension: How often the last row and column of the upsampled scores are repeated, for
            pools that round down: their maps may end before the image does.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        strides: Mapping[str, int],
        *,
        num_classes: int,
        coordinates: Mapping[str, Coordinates],
        skips: Mapping[str, float] | None = None,
        upsampling: str = "frozen",
        kernel_size: int | None = None,
        extension: int = 0,
    ) -> None:
        super().__init__()
        self.extension = extension
        self.scales = dict(skips or {})
        self.score = _make_score_layer(channels["c5"], num_classes)
        self.skips = nn.ModuleDict()
        self.doubling = nn.ModuleDict()
        self.offsets: dict[str, int] = {}
        position = coordinates["c5"]
        stride = strides["c5"]
        for name in self.scales:
            self.skips[name] = _make_score_layer(channels[name], num_classes)
            self.doubling[name] = make_upsampling(upsampling, num_classes, kernel_size=4, stride=2)
            position = position.after(self.doubling[name])
            self.offsets[name] = coordinates[name].crop_to(position)
            stride = strides[name]
        self.upsampling = make_upsampling(
            upsampling, num_classes, kernel_size=kernel_size or 2 * stride, stride=stride
        )
        self.offsets["image"] = position.after(self.upsampling).crop_to(Coordinates())

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.score(features["c5"])
        for name, scale in self.scales.items():
            scores = self.doubling[name](scores)
            finer = self.skips[name](features[name] * scale)
            size = (scores.shape[2], scores.shape[3])
            scores = scores + crop(finer, offset=self.offsets[name], size=size)
        return scores

    def upsample(self, scores: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Upsample the scores at the finest map to logits of the image's `size` (height, width)."""
        upsampled = self.upsampling(scores)
        if self.extension:
            upsampled = F.pad(upsampled, [0, self.extension, 0, self.extension], mode="replicate")
        return crop(upsampled, offset=self.offsets["image"], size=size)


def _make_score_layer(channels: int, num_classes: int) -> nn.Conv2d:
    score = nn.Conv2d(channels, num_classes, 1)
    nn.init.zeros_(score.weight)
    assert score.bias is not None
    nn.init.zeros_(score.bias)
    return score


def fcn_vgg16(
    skips: Mapping[str, float],
    /,
    *,
    num_classes: int,
    in_channels: int = 3,
    upsampling: str = "frozen",
    ceil_mode: bool = True,
    width: float = 1.0,
) -> Segmenter:
    """FCN on VGG16 with random weights.

    Args:
        skips: Maps to add, such as FCN_8S.
        num_classes: Number of classes.
        in_channels: Number of image channels.
        upsampling: "frozen" for fixed bilinear kernels, as in the reference code; "learned" for
            kernels that start bilinear; "interpolate" for interpolation, which differs from
            "frozen" only near the border.
        ceil_mode: True rounds the size of pools up, as Caffe does. False rounds down, as PyTorch
            does by default. The maps lie at the same coordinates, but those of FCN-32s and FCN-16s
            may then end up to 12 and 4 pixels before the image, whose last rows and columns of
            logits are repeated.
        width: Multiplier of the channels of VGG16.

    Raises:
        InputError: If `upsampling` or `width` is not allowed.
    """
    backbone = VGG16(in_channels=in_channels, width=width, ceil_mode=ceil_mode)
    head = FCNSkipHead(
        backbone.channels,
        backbone.strides,
        num_classes=num_classes,
        coordinates=backbone.coordinates,
        skips=skips,
        upsampling=upsampling,
        extension=0 if ceil_mode else FLOOR_EXTENSIONS[len(skips)],
    )
    return Segmenter(backbone, head)


fcn32s = partial(fcn_vgg16, FCN_32S)
fcn16s = partial(fcn_vgg16, FCN_16S)
fcn8s = partial(fcn_vgg16, FCN_8S)
fcn8s_atonce = partial(fcn_vgg16, FCN_8S_AT_ONCE)


def fcn_alexnet(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "caffenet",
    upsampling: str = "frozen",
    width: float = 1.0,
) -> Segmenter:
    """FCN-AlexNet with random weights.

    Args:
        num_classes: Number of classes.
        in_channels: Number of image channels.
        backbone: "caffenet", as in the paper, or "alexnet" for torchvision's.
        upsampling: "frozen" or "learned"; see `fcn_vgg16`.
        width: Multiplier of the channels of the backbone.

    Raises:
        InputError: If `backbone` or `upsampling` is not allowed.
    """
    if backbone not in ALEXNETS:
        raise InputError(f"backbone {backbone!r}: must be one of {', '.join(ALEXNETS)}")
    return _build_fcn32s(
        ALEXNETS[backbone](in_channels=in_channels, width=width), num_classes, upsampling
    )


def fcn_googlenet(
    *, num_classes: int, in_channels: int = 3, upsampling: str = "frozen"
) -> Segmenter:
    """FCN-GoogLeNet with random weights: scores of the last inception, without skips.

    The backbone is torchvision's, for which weights are published: unlike the paper's, it has batch
    normalization, and 3x3 convolutions in place of 5x5 ones.

    Args:
        num_classes: Number of classes.
        in_channels: Number of image channels.
        upsampling: "frozen" or "learned"; see `fcn_vgg16`.

    Raises:
        InputError: If `upsampling` is not allowed.
    """
    return _build_fcn32s(GoogLeNet(in_channels=in_channels), num_classes, upsampling)


def _build_fcn32s(
    backbone: AlexNet | CaffeNet | GoogLeNet, num_classes: int, upsampling: str
) -> Segmenter:
    head = FCNSkipHead(
        backbone.channels,
        backbone.strides,
        num_classes=num_classes,
        coordinates=backbone.coordinates,
        upsampling=upsampling,
        kernel_size=63,  # 63 puts the scores on whole pixels; 64 would put them between pixels
    )
    return Segmenter(backbone, head)
