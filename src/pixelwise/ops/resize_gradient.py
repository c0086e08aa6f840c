"""Bilinear interpolation whose gradient is computed with matrix products.

Interpolating rows, and columns, is a product with a sparse matrix, and so is its gradient.
PyTorch's own gradient accumulates pixel by pixel: it is eight times slower for 256 channels in
channels_last order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def resize(x: Tensor, *, size: Size, align_corners: bool) -> Tensor:
    """Interpolate a map (B, C, H, W), float32 or float64, to `size` (height, width)."""
    out: Tensor = _Resize.apply(x, size, align_corners)  # type: ignore[no-untyped-call]
    return out


class _Resize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: Size, align_corners: bool) -> Tensor:
        ctx.sizes = (x.shape[2], x.shape[3]), size
        ctx.align_corners = align_corners
        return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        rows, columns = (
            _interpolation(small, large, ctx.align_corners, gradient.dtype)
            for small, large in zip(*ctx.sizes, strict=True)
        )
        if gradient.stride(1) != 1:  # not channels_last
            return torch.matmul(rows, torch.matmul(gradient, columns.t())), None, None
        narrow = torch.matmul(columns, gradient.permute(0, 2, 3, 1))
        small = torch.matmul(rows, narrow.flatten(2))
        # Not -1 for a dimension: a process without images has an empty batch.
        grad_x = small.view(*small.shape[:2], *narrow.shape[2:])
        return grad_x.permute(0, 3, 1, 2), None, None


@lru_cache(maxsize=64)
def _interpolation(small: int, large: int, align_corners: bool, dtype: torch.dtype) -> Tensor:
    """Return the weights (small, large) of each small position in each large position."""
    lines = torch.eye(small, dtype=dtype)[None, :, None]  # one-hot: (1, S, 1, S)
    wide = F.interpolate(lines, size=(1, large), mode="bilinear", align_corners=align_corners)
    return wide[0, :, 0]
