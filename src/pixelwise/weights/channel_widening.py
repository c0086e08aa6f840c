"""Adapt weights for RGB images to images with another number of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def first_kernel_name(network: nn.Module) -> str:
    """Return the name of the first convolution's weight, which is applied to the image."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return f"{name}.weight"
    raise ValueError("no convolution in the network")


def widen(kernel: Tensor, channels: int) -> Tensor:
    """Adapt the kernel of the first convolution to another number of image channels.

    Channels that both images have keep their weights; new ones get the mean of the first three. An
    image with fewer than three channels has no colors, so all its channels get that mean.

    Args:
        kernel: Weight (O, N, h, w).
        channels: New number of channels.

    Returns:
        Weight (O, channels, h, w).
    """
    mean = kernel[:, :3].mean(dim=1, keepdim=True)
    shared = kernel[:, : channels if channels >= min(3, kernel.shape[1]) else 0]
    return torch.cat([shared, mean.repeat(1, channels - shared.shape[1], 1, 1)], dim=1)
