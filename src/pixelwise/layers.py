"""The parts that several papers share. Tensors are (B, C, H, W) float unless said otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that survives a channel with a single value.

    A batch of one after global pooling has no variance to normalise with; PyTorch raises there in
    training. This layer uses its running statistics for such a batch, as it would at test time.
    """

    def forward(self, input: Tensor) -> Tensor:
        values_per_channel = input.numel() // max(1, input.shape[1])
        if self.training and values_per_channel <= 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class ConvNormAct(nn.Sequential):
    """Convolution that keeps the size at stride 1, batch normalisation, ReLU.

    `activation` is any module without parameters, None for none. The convolution has no bias,
    since the normalisation's shift takes its place.
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
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=(kernel_size - 1) // 2 * dilation,
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            BatchNorm2d(out_channels),
        ]
        if activation is not None:
            layers.append(activation(inplace=True))
        super().__init__(*layers)


class SeparableConv(nn.Sequential):
    """Depthwise 3x3, pointwise 1x1, each with batch norm and ReLU (DeepLabV3+, section 3.1)."""

    def __init__(self, in_channels: int, out_channels: int, *, dilation: int = 1) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, dilation=dilation, groups=in_channels),
            ConvNormAct(in_channels, out_channels, kernel_size=1),
        )


class ImagePooling(nn.Module):
    """The mean over the image, projected and spread over the map again (DeepLabV3, section 3.3)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = ConvNormAct(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.project(x.mean(dim=(2, 3), keepdim=True))
        return pooled.expand(-1, -1, x.shape[2], x.shape[3])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabV3, section 3.3): (B, C, H, W) to (B, out, H, W).

    A 1x1 branch, one 3x3 branch for each rate, and image pooling, concatenated and projected, then
    dropout. `separable` makes the 3x3 branches depthwise separable, as DeepLabV3+ does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        *,
        rates: tuple[int, ...],
        separable: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNormAct(in_channels, out_channels, kernel_size=1)])
        for rate in rates:
            self.branches.append(
                SeparableConv(in_channels, out_channels, dilation=rate)
                if separable
                else ConvNormAct(in_channels, out_channels, dilation=rate)
            )
        self.branches.append(ImagePooling(in_channels, out_channels))
        self.project = ConvNormAct(out_channels * len(self.branches), out_channels, kernel_size=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        context = torch.cat([branch(x) for branch in self.branches], dim=1)
        out: Tensor = self.dropout(self.project(context))
        return out


def resize(x: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation of (B, C, H, W) to `size` (height, width), corners not aligned."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
