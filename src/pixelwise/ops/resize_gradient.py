"""Bilinear interpolation with a gradient by matrix products.

Interpolation of rows and of columns is a product with a thin matrix each, and so is its gradient.
PyTorch's own adds up pixel by pixel: eight times slower for 256 channels that lie last.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def resize(x: Tensor, *, size: Size, align_corners: bool) -> Tensor:
    """(B, C, H, W) float32 or float64 at `size` (height, width), by bilinear interpolation."""
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
            _spread(small, large, ctx.align_corners, gradient.dtype)
            for small, large in zip(*ctx.sizes, strict=True)
        )
        if gradient.stride(1) != 1:  # channels lie first
            return torch.matmul(rows, torch.matmul(gradient, columns.t())), None, None
        narrow = torch.matmul(columns, gradient.permute(0, 2, 3, 1))
        small = torch.matmul(rows, narrow.flatten(2))  # of a process without images, nothing
        wide = small.view(*small.shape[:2], *narrow.shape[2:])
        return wide.permute(0, 3, 1, 2), None, None


@lru_cache(maxsize=64)
def _spread(small: int, large: int, align_corners: bool, dtype: torch.dtype) -> Tensor:
    """(small, large): what each of the large side's positions gives back to the small side's."""
    lines = torch.eye(small, dtype=dtype)[None, :, None]  # each position alone: (1, S, 1, S)
    wide = F.interpolate(lines, size=(1, large), mode="bilinear", align_corners=align_corners)
    return wide[0, :, 0]
