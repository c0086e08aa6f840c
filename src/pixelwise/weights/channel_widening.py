"""Weights for images of three channels, put to use on images of more."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def image_kernel(network: nn.Module) -> str:
    """The name of the weights that see the image: those of the first convolution."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return f"{name}.weight"
    raise ValueError("no convolution in the network")


def widen(kernel: Tensor, channels: int) -> Tensor:
    """A kernel (O, N, h, w) that sees an image, as (O, channels, h, w).

    The channels that both have keep their weights, a new one gets the mean of the first three's.
    For fewer than three, which are no colors any more, each gets that mean.
    """
    mean = kernel[:, :3].mean(dim=1, keepdim=True)
    kept = kernel[:, : channels if channels >= min(3, kernel.shape[1]) else 0]
    return torch.cat([kept, mean.repeat(1, channels - kept.shape[1], 1, 1)], dim=1)
