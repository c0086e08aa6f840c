"""Convolution blocks that several papers share. Tensors are (B, C, H, W) float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.layers.norm import BatchNorm2d


def pad_same(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> Tensor:
    """Pad (B, C, H, W) so that a kernel gives ceil(H / stride) x ceil(W / stride) positions.

    This is TensorFlow's SAME padding, with zeros; if it is uneven, the bottom and right borders get
    the larger half. It has no comparisons of sizes, which may be symbolic during export.
    """
    left_right_top_bottom: list[int] = []
    for side, size, step, rate in zip(
        x.shape[:1:-1], reversed(kernel), reversed(stride), reversed(dilation), strict=True
    ):
        covered = (side - 1) // step * step + rate * (size - 1) + 1
        padding = covered - side
        if rate * (size - 1) < step - 1:  # otherwise it is never negative
            padding = max(0, padding) if size > 1 else 0
        left_right_top_bottom += [padding // 2, padding - padding // 2]
    return F.pad(x, left_right_top_bottom)


class TensorFlowConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: H x W to ceil(H / stride) x ceil(W / stride).

    At stride 1, and at stride 2 on odd sizes, this equals PyTorch's symmetric padding. The
    `padding` argument of `nn.Conv2d` is ignored.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(
            pad_same(input, self.kernel_size, self.stride, self.dilation),
            self.weight,
            self.bias,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch normalization, activation.

    At stride 1 the output has the size of the input. The convolution has no bias: batch
    normalization has its own.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Side of the square kernel.
        stride: Stride of the convolution.
        dilation: Dilation rate of the convolution.
        groups: Number of groups of the convolution.
        activation: Class of an activation without parameters, or None for no activation.
        eps: Value added to the variance in the normalization.
        tensorflow_padding: Pad as TensorFlow does instead of symmetrically.
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
        # At stride 1 both pad alike, and padding inside the convolution is faster.
        convolution = TensorFlowConv2d if tensorflow_padding and stride > 1 else nn.Conv2d
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
            return norm.normalize(_convolve(convolution, input), rest[0] if rest else None)
        out: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return out


def _convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution, with the compiled kernel if one exists for it."""
    from pixelwise.ops.depthwise_conv import depthwise, is_slow_depthwise

    if x.dtype == torch.float32 and x.device.type == "cpu" and is_slow_depthwise(layer):
        return depthwise(x, cast(nn.Conv2d, layer))
    out: Tensor = layer(x)
    return out


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 and pointwise 1x1, each with batch norm and ReLU (DeepLabV3+, section 3.1).

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        dilation: Dilation rate of the depthwise convolution.
        eps: Value added to the variance in both normalizations.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, dilation: int = 1, eps: float = 1e-5
    ) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, dilation=dilation, groups=in_channels, eps=eps),
            ConvNormAct(in_channels, out_channels, kernel_size=1, eps=eps),
        )
