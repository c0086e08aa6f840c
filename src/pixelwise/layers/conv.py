"""Convolution blocks that several papers share. Tensors are (B, C, H, W) float."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.layers.norm import BatchNorm2d


class TensorFlowConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: H x W to ceil(H / stride) x ceil(W / stride).

    Where the padding is uneven, the lower and right border have the greater part. At stride 1, and
    at stride 2 on odd sizes, this is PyTorch's even padding. `padding` is not looked at.
    """

    def forward(self, input: Tensor) -> Tensor:
        left_right_top_bottom: list[int] = []
        for side, kernel, stride, dilation in zip(
            input.shape[:1:-1],
            reversed(self.kernel_size),
            reversed(self.stride),
            reversed(self.dilation),
            strict=True,
        ):
            reach = (side - 1) // stride * stride + dilation * (kernel - 1) + 1
            padding = reach - side
            if dilation * (kernel - 1) < stride - 1:  # else it never is below 0
                padding = max(0, padding) if kernel > 1 else 0
            left_right_top_bottom += [padding // 2, padding - padding // 2]
        padded = F.pad(input, left_right_top_bottom)
        return F.conv2d(
            padded,
            self.weight,
            self.bias,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvNormAct(nn.Sequential):
    """Convolution that keeps the size at stride 1, batch normalization, ReLU.

    `activation` is any module without parameters, None for none. The convolution has no bias,
    since the normalization's shift takes its place. `eps` is what the normalization adds to the
    variance. `tensorflow_padding` pads as TensorFlow does, instead of evenly.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
        eps: float = 1e-5,
        tensorflow_padding: bool = False,
    ) -> None:
        convolution = TensorFlowConv2d if tensorflow_padding else nn.Conv2d
        layers: list[nn.Module] = [
            convolution(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=(kernel_size - 1) // 2 * dilation,
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            BatchNorm2d(out_channels, eps=eps),
        ]
        if activation is not None:
            layers.append(activation(inplace=True))
        super().__init__(*layers)

    def forward(self, input: Tensor) -> Tensor:
        convolution, norm, *rest = self
        if isinstance(norm, BatchNorm2d) and norm.compiled and self.training:
            return norm.activated(_convolve(convolution, input), rest[0] if rest else None)
        out: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return out


def _convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """By the compiled form where there is one for the layer."""
    from pixelwise.ops.depthwise_conv import depthwise, is_dilated_depthwise

    if x.dtype == torch.float32 and x.device.type == "cpu" and is_dilated_depthwise(layer):
        return depthwise(x, cast(nn.Conv2d, layer))
    out: Tensor = layer(x)
    return out


class SeparableConv(nn.Sequential):
    """Depthwise 3x3, pointwise 1x1, each with batch norm and ReLU (DeepLabV3+, section 3.1)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, dilation: int = 1, eps: float = 1e-5
    ) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, dilation=dilation, groups=in_channels, eps=eps),
            ConvNormAct(in_channels, out_channels, kernel_size=1, eps=eps),
        )
