"""Bilinear resizing of maps (B, C, H, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.layers.forward_context import current_context
from pixelwise.ops import resize_gradient


def resize(x: Tensor, *, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Bilinear interpolation of (B, C, H, W) to `size` (height, width).

    align_corners: the middles of the corner positions stay where they are, as Caffe's and
    TensorFlow's DeepLab have it; else the outer borders do.
    """
    if x.shape[-2:] == size:
        return x
    here = current_context()
    resized = None if here is None else here.resize(x, size=size, align_corners=align_corners)
    if resized is not None:
        return resized
    exact = x.dtype in (torch.float32, torch.float64)
    if x.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu" and exact:
        return resize_gradient.resize(x, size=size, align_corners=align_corners)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def upsample_from_pixels(x: Tensor, *, stride: int, size: tuple[int, int]) -> Tensor:
    """The same to `size`, for a map whose position i lies on pixel `stride * i` and not between
    pixels: where every window is odd and padded evenly, and the image is a multiple of the stride
    and one more, which it may have been padded to. Caffe's DeepLab upsamples so (layer Interp).
    """
    height, width = (stride * (side - 1) + 1 for side in x.shape[2:])
    upsampled = resize(x, size=(height, width), align_corners=True)
    return upsampled[:, :, : size[0], : size[1]]
