"""DeepLabV3+ (arXiv:1802.02611): ASPP for context, an early feature map for boundaries.

With Xception and MobileNetV2 the 3x3 convolutions of the head are depthwise separable, with ResNets
they are plain (tables 5 and 3). The rates are given for output stride 16 and doubled at 8 (section
4.2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.layers import ASPP, ConvNormAct, SeparableConv, resize
from pixelwise.models.deeplab_v3 import RATES, DeepLabV3Head, check_output_stride, create_dilated
from pixelwise.models.segmenter import Segmenter


class DeepLabV3PlusHead(nn.Module):
    """Predict logits at stride 4 from a low-level and a high-level feature map.

    The decoder of section 3.1 and figure 2: c2 (B, C2, H/4, W/4) and c5 (B, C5, H/os, W/os) to
    logits of c2's size.

    Args:
        channels: Number of channels of each backbone map, by name.
        num_classes: Number of output channels.
        rates: Dilation rates of the ASPP.
        separable: Make all 3x3 convolutions depthwise separable.
        align_corners: Align corners when the context is upsampled.
        stride_2_skip: Refine the result at stride 2 with c1 (B, C1, H/2, W/2), for thin objects;
            the logits then have c1's size.
    """

    def __init__(
        self,
        channels: dict[str, int],
        *,
        num_classes: int,
        rates: tuple[int, ...],
        separable: bool,
        align_corners: bool = False,
        stride_2_skip: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.context = ASPP(channels["c5"], 256, rates=rates, separable=separable)
        # 48 channels keep the low-level features from outweighing the context (section 4.1).
        self.detail = ConvNormAct(channels["c2"], 48, kernel_size=1)
        conv: type[nn.Module] = SeparableConv if separable else ConvNormAct
        self.fuse = nn.Sequential(conv(256 + 48, 256), conv(256, 256))
        self.refine = Refinement(256, channels["c1"]) if stride_2_skip else None
        self.classify = nn.Conv2d(64 if stride_2_skip else 256, num_classes, kernel_size=1)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        detail = self.detail(features["c2"])
        context = resize(
            self.context(features["c5"]),
            size=(detail.shape[2], detail.shape[3]),
            align_corners=self.align_corners,
        )
        fused = self.fuse(torch.cat([context, detail], dim=1))
        if self.refine is not None:
            fused = self.refine(fused, features["c1"], align_corners=self.align_corners)
        logits: Tensor = self.classify(fused)
        return logits


class Refinement(nn.Module):
    """Combine a map with the features at stride 2, in few channels: most of its cost is pixels.

    (B, C, H/4, W/4) and c1 (B, C1, H/2, W/2) to (B, 64, H/2, W/2). Not part of the paper.

    Args:
        channels: Number of channels of the map.
        fine_channels: Number of channels of c1.
    """

    def __init__(self, channels: int, fine_channels: int) -> None:
        super().__init__()
        self.reduce = ConvNormAct(channels, 48, kernel_size=1)
        self.detail = ConvNormAct(fine_channels, 16, kernel_size=1)
        self.fuse = SeparableConv(48 + 16, 64)

    def forward(self, x: Tensor, fine: Tensor, *, align_corners: bool) -> Tensor:
        size = (fine.shape[2], fine.shape[3])
        coarse = resize(self.reduce(x), size=size, align_corners=align_corners)
        refined: Tensor = self.fuse(torch.cat([coarse, self.detail(fine)], dim=1))
        return refined


def deeplab_v3plus(
    *,
    num_classes: int,
    in_channels: int = 3,
    backbone: str = "mobilenet_v2",
    output_stride: int = 16,
    decoder: bool = True,
    aspp: bool = True,
    separable: bool | None = None,
    multi_grid: bool = True,
    caffe: bool = False,
    align_corners: bool = False,
    tensorflow: bool = False,
    width: float = 1.0,
    stride_2_skip: bool = False,
    input_scale: float = 1.0,
) -> Segmenter:
    """DeepLabV3+ with random weights.

    The authors' published weights need `align_corners`. Those on MobileNetV2 also need `tensorflow`
    and have neither decoder nor ASPP (arXiv:1801.04381, section 6.3).

    Args:
        num_classes: Number of classes.
        in_channels: Number of image channels.
        backbone: A key of `backbones.BACKBONES`, or timm/NAME.
        output_stride: 16, or 8 for a denser and slower context.
        decoder: False returns the logits of the ASPP, as in DeepLabV3.
        aspp: False leaves only the 1x1 convolution and the image pooling of the ASPP.
        separable: Make the 3x3 convolutions of the head depthwise separable. By default they are,
            except with ResNets.
        multi_grid: Use unit rates 1, 2, 4 in the last stage of a ResNet with bottlenecks.
        caffe: Use a ResNet in the form of its authors and of DeepLab v2, with 50 or more layers;
            see `ResNet`. Weights by kazuto1011 need it.
        align_corners: Align corners in every resize.
        tensorflow: Use MobileNetV2 in the form of the authors' weights.
        width: Multiplier of MobileNetV2's channels; weights were also published for 0.5.
        stride_2_skip: Refine the decoder's result with the features at stride 2, for thin objects.
        input_scale: Resize images by this factor first; above 1 the maps are finer and the network
            is slower. The logits keep the size of the image.

    Raises:
        InputError: If an option is not allowed, for instance `tensorflow` or `width` with another
            backbone than MobileNetV2.
    """
    check_output_stride("DeepLabV3+", output_stride)
    if stride_2_skip and not decoder:
        raise InputError("stride_2_skip: is a part of the decoder: leave out decoder = false")
    options: dict[str, Any] = {}
    if tensorflow:
        options["tensorflow"] = True
    if width != 1:
        options["width"] = width
    if options and backbone != "mobilenet_v2":
        (name, value), *_ = options.items()
        raise InputError(f"{name} {value}: is an option of mobilenet_v2, not of {backbone}")
    if separable is None:
        separable = not backbone.removeprefix("timm/").startswith("resnet")
    features = create_dilated(
        backbone,
        output_stride=output_stride,
        in_channels=in_channels,
        multi_grid=multi_grid,
        caffe=caffe,
        **options,
    )
    needed = {"c2": 4, "c1": 2} if stride_2_skip else {"c2": 4} if decoder else {}
    for name, stride in needed.items():
        if features.strides.get(name) != stride:
            option = "stride_2_skip" if name == "c1" else "decoder"
            raise InputError(
                f"backbone {backbone!r}: has no map at stride {stride}, which the decoder needs: "
                f"use --set model.options.{option}=false"
            )
    rates = RATES[output_stride] if aspp else ()
    head: nn.Module
    if decoder:
        head = DeepLabV3PlusHead(
            features.channels,
            num_classes=num_classes,
            rates=rates,
            separable=separable,
            align_corners=align_corners,
            stride_2_skip=stride_2_skip,
        )
    else:
        head = DeepLabV3Head(
            features.channels["c5"], num_classes=num_classes, rates=rates, separable=separable
        )
    return Segmenter(features, head, align_corners=align_corners, input_scale=input_scale)
