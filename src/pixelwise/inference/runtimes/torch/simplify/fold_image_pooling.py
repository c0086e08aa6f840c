"""ASPP's image pooling (DeepLabV3, arXiv:1706.05587, section 3.3) as a bias of the projection.

It is the same at every position, and so is what the 1x1 projection makes of it: a bias, worked out
at one position. Its map is neither spread, nor concatenated, nor projected.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.inference.runtimes.torch.simplify.replace_modules import replace
from pixelwise.layers import ASPP, ImagePooling, image_mean


def fold_image_pooling(model: nn.Module) -> nn.Module:
    """`model`, in evaluation mode and with batch normalization folded, with a `SplitASPP` in place
    of every ASPP; it is changed."""
    return replace(model, lambda module: isinstance(module, ASPP), SplitASPP)


class SplitASPP(nn.Module):
    """What `aspp` makes of (B, C, H, W), the weights of its projection split in two."""

    def __init__(self, aspp: ASPP) -> None:
        super().__init__()
        *branches, pooling = aspp.branches
        convolution, *after = aspp.project
        assert isinstance(pooling, ImagePooling)
        assert isinstance(convolution, nn.Conv2d)
        local = convolution.in_channels - convolution.in_channels // len(aspp.branches)
        self.branches = nn.ModuleList(branches)
        self.pooling = pooling.project
        self.project = _with_weight(convolution.weight[:, :local], bias=None)
        self.project_pooled = _with_weight(convolution.weight[:, local:], bias=convolution.bias)
        self.after = nn.Sequential(*after, aspp.dropout)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.project_pooled(self.pooling(image_mean(x)))
        context = torch.cat([branch(x) for branch in self.branches], dim=1)
        out: Tensor = self.after(self.project(context) + bias)
        return out


def _with_weight(weight: Tensor, *, bias: Tensor | None) -> nn.Conv2d:
    convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    convolution.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        convolution.bias = nn.Parameter(bias.detach().clone())
    return convolution
