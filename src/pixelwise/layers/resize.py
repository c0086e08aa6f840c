"""Bilinear resizing of maps (B, C, H, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.layers.forward_context import current_context
from pixelwise.ops import resize_gradient


def resize(x: Tensor, *, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Resize (B, C, H, W) bilinearly.

    Args:
        x: The map.
        size: Output size (height, width).
        align_corners: Keep the centers of the corner positions in place, as DeepLab in Caffe and
            TensorFlow does. By default the outer borders stay in place.

    Returns:
        The map (B, C, height, width), or `x` itself if it has that size.
    """
    if x.shape[-2:] == size:
        return x
    context = current_context()
    if context is not None:
        resized = context.resize(x, size=size, align_corners=align_corners)
        if resized is not None:
            return resized
    full_precision = x.dtype in (torch.float32, torch.float64)
    if x.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu" and full_precision:
        return resize_gradient.resize(x, size=size, align_corners=align_corners)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def upsample_from_pixels(x: Tensor, *, stride: int, size: tuple[int, int]) -> Tensor:
    """Upsample a map whose position i is centered on pixel `stride * i`, as Caffe's Interp layer.

    Positions are centered on pixels if every kernel is odd and padded symmetrically and the image,
    possibly after padding, is one pixel larger than a multiple of the stride.

    Args:
        x: The map (B, C, h, w).
        stride: Pixels from one position to the next.
        size: Output size (height, width); the rest is cropped at the bottom and the right.
    """
    height, width = (stride * (side - 1) + 1 for side in x.shape[2:])
    upsampled = resize(x, size=(height, width), align_corners=True)
    return upsampled[:, :, : size[0], : size[1]]
