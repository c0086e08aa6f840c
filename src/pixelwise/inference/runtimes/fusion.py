"""Batch normalisation folded into the convolution before it: the same function, less work."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of `model`, in evaluation mode, without the normalisations that follow convolutions.

    Within an nn.Sequential a convolution directly followed by a BatchNorm2d becomes one convolution
    with a bias; the normalisation's place holds an Identity. Equal up to rounding.
    """
    folded = copy.deepcopy(model).eval()
    for module in folded.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for first, second in zip(range(len(module)), range(1, len(module)), strict=False):
            convolution, norm = module[first], module[second]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[first] = fuse_conv_bn_eval(convolution, norm)
                module[second] = nn.Identity()
    return folded
