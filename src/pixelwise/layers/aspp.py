"""Atrous spatial pyramid pooling and image pooling (DeepLabV3, arXiv:1706.05587)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.layers.conv import ConvNormAct, SeparableConv
from pixelwise.layers.forward_context import current_context, map_mean
from pixelwise.layers.norm import Dropout


class ImagePooling(nn.Module):
    """Average the feature map, project the mean and broadcast it (DeepLabV3, section 3.3).

    Args:
        in_channels: Number of channels of the input (B, in_channels, H, W).
        out_channels: Number of channels of the output (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = ConvNormAct(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.project(image_mean(x))
        return pooled.expand(-1, -1, x.shape[2], x.shape[3])


def image_mean(x: Tensor) -> Tensor:
    """Average (B, C, H, W) over the whole image, to (B, C, 1, 1).

    Within a tile, `forward_context` supplies the mean of the image that the tile belongs to.
    """
    context = current_context()
    return map_mean(x) if context is None else context.mean(x)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabV3, section 3.3): (B, C, H, W) to (B, out, H, W).

    A 1x1 branch, one 3x3 branch per dilation rate and image pooling are concatenated, projected
    and followed by dropout.

    Args:
        in_channels: Number of input channels.
        out_channels: Number of output channels, of each branch and of the projection.
        rates: Dilation rates of the 3x3 branches. May be empty.
        separable: Make the 3x3 branches depthwise separable, as DeepLabV3+ does.
        dropout: Dropout probability after the projection.
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
        conv: type[ConvNormAct | SeparableConv] = SeparableConv if separable else ConvNormAct
        self.branches = nn.ModuleList([ConvNormAct(in_channels, out_channels, kernel_size=1)])
        self.branches.extend(conv(in_channels, out_channels, dilation=rate) for rate in rates)
        self.branches.append(ImagePooling(in_channels, out_channels))
        self.project = ConvNormAct(out_channels * len(self.branches), out_channels, kernel_size=1)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        context = torch.cat([branch(x) for branch in self.branches], dim=1)
        out: Tensor = self.dropout(self.project(context))
        return out
