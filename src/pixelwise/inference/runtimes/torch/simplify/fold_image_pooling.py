"""ASPP's image pooling (DeepLabV3, arXiv:1706.05587, section 3.3) as a bias of the projection.

The pooled features are the same at every position, and so is their contribution to the 1x1
projection: a bias, computed at one position. The pooled map is neither expanded nor concatenated
nor projected.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixelwise.inference.runtimes.torch.simplify.replace_modules import replace_modules
from pixelwise.layers import ASPP, ImagePooling, image_mean


def fold_image_pooling(model: nn.Module) -> nn.Module:
    """Replace every ASPP of a network with a `SplitASPP`, in place.

    Args:
        model: Network in evaluation mode with folded batch normalization.
    """
    return replace_modules(model, lambda module: isinstance(module, ASPP), SplitASPP)


class SplitASPP(nn.Module):
    """Compute an ASPP with its projection split into a local and a pooled part.

    Args:
        aspp: The ASPP, whose weights are copied.
    """

    def __init__(self, aspp: ASPP) -> None:
        super().__init__()
        *branches, pooling = aspp.branches
        convolution, *after = aspp.project
        assert isinstance(pooling, ImagePooling)
        assert isinstance(convolution, nn.Conv2d)
        local = convolution.in_channels - convolution.in_channels // len(aspp.branches)
        self.branches = nn.ModuleList(branches)
        self.pooling = pooling.project
        self.project = _conv1x1(convolution.weight[:, :local], bias=None)
        self.project_pooled = _conv1x1(convolution.weight[:, local:], bias=convolution.bias)
        self.after = nn.Sequential(*after, aspp.dropout)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.project_pooled(self.pooling(image_mean(x)))
        context = torch.cat([branch(x) for branch in self.branches], dim=1)
        out: Tensor = self.after(self.project(context) + bias)
        return out


def _conv1x1(weight: Tensor, *, bias: Tensor | None) -> nn.Conv2d:
    convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    convolution.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        convolution.bias = nn.Parameter(bias.detach().clone())
    return convolution
