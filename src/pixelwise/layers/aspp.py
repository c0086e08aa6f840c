"""Atrous spatial pyramid pooling and image pooling (DeepLabV3, arXiv:1706.05587)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.layers.conv import ConvNormAct, SeparableConv
from pixelwise.layers.forward_context import current_context, whole_mean
from pixelwise.layers.norm import Dropout


class ImagePooling(nn.Module):
    """The mean over the image, projected and spread over the map again (DeepLabV3, section 3.3)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = ConvNormAct(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.project(image_mean(x))
        return pooled.expand(-1, -1, x.shape[2], x.shape[3])


def image_mean(x: Tensor) -> Tensor:
    """The mean (B, C, 1, 1) of a map over the whole image."""
    here = current_context()
    return whole_mean(x) if here is None else here.mean(x)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabV3, section 3.3): (B, C, H, W) to (B, out, H, W).

    A 1x1 branch, one 3x3 branch for each rate, of which there may be none, and image pooling,
    concatenated and projected, then dropout. `separable` makes the 3x3 branches depthwise
    separable, as DeepLabV3+ does.
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
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        context = torch.cat([branch(x) for branch in self.branches], dim=1)
        out: Tensor = self.dropout(self.project(context))
        return out
