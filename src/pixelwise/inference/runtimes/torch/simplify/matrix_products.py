"""FCN's fc6 as one product of matrices, which reads its 400 MB of weights once.

As a convolution of 7x7 on a map of 22x22, PyTorch and OpenVINO read them once a row of the result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.inference.runtimes.torch.simplify.replace_modules import replace

LARGE = 5  # a smaller window is a fast convolution


def multiply_large_windows(model: nn.Module) -> nn.Module:
    """`model`, in evaluation mode, with a `WindowProduct` in place of every convolution with a
    large window that is not padded and takes every step; it is changed."""
    return replace(model, _is_fully_connected, WindowProduct)


class WindowProduct(nn.Module):
    """What `convolution` makes of (B, C, H, W): the windows, side by side, times the weights."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.window = convolution.kernel_size
        weight = convolution.weight.detach().permute(0, 2, 3, 1).flatten(1)
        self.weight = nn.Parameter(weight.contiguous())  # (out, rows * columns * C)
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.window
        height, width = x.shape[2] - rows + 1, x.shape[3] - columns + 1
        last = x.permute(0, 2, 3, 1)
        places = [
            last[:, row : row + height, column : column + width]
            for row in range(rows)
            for column in range(columns)
        ]
        return F.linear(torch.cat(places, dim=3), self.weight, self.bias).permute(0, 3, 1, 2)


def _is_fully_connected(convolution: nn.Module) -> bool:
    return (
        isinstance(convolution, nn.Conv2d)
        and min(convolution.kernel_size) >= LARGE
        and convolution.padding == (0, 0)
        and convolution.stride == (1, 1)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )
