"""FCN's fc6 as one matrix product, which reads its 400 MB of weights once.

PyTorch and OpenVINO read the weights of a 7x7 convolution on a 22x22 map once per output row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.inference.runtimes.torch.simplify.replace_modules import replace_modules

MIN_KERNEL_SIZE = 5  # smaller convolutions are already fast


def use_matrix_products(model: nn.Module) -> nn.Module:
    """Replace convolutions that have a large kernel with a `MatrixProductConv`, in place.

    Only convolutions without padding, stride, dilation and groups are replaced.

    Args:
        model: Network in evaluation mode.
    """
    return replace_modules(model, _is_suitable, MatrixProductConv)


class MatrixProductConv(nn.Module):
    """Compute a convolution as a product of its weights and the windows of the input (im2col).

    Args:
        convolution: The convolution, whose weights are copied.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.kernel_size = convolution.kernel_size
        weight = convolution.weight.detach().permute(0, 2, 3, 1).flatten(1)
        self.weight = nn.Parameter(weight.contiguous())  # (out, rows * columns * C)
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.kernel_size
        height, width = x.shape[2] - rows + 1, x.shape[3] - columns + 1
        channels_last = x.permute(0, 2, 3, 1)
        shifted = [
            channels_last[:, row : row + height, column : column + width]
            for row in range(rows)
            for column in range(columns)
        ]
        return F.linear(torch.cat(shifted, dim=3), self.weight, self.bias).permute(0, 3, 1, 2)


def _is_suitable(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and min(module.kernel_size) >= MIN_KERNEL_SIZE
        and module.padding == (0, 0)
        and module.stride == (1, 1)
        and module.dilation == (1, 1)
        and module.groups == 1
    )
