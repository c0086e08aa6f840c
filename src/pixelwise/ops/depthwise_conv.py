"""Depthwise convolution with a compiled gradient of its weights.

oneDNN computes this gradient up to ten times more slowly for dilated kernels, and up to three times
for 5x5 kernels. The gradient of the input is a convolution with flipped kernels, which oneDNN
computes fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.ops import training_kernels
from pixelwise.ops.memory_format import channels_last
from pixelwise.ops.thread_pool import run_parallel


def is_slow_depthwise(layer: nn.Module) -> bool:
    """Return whether `depthwise` can compute a layer, and faster than PyTorch."""
    if not isinstance(layer, nn.Conv2d):
        return False
    rate, side = layer.dilation[0], layer.kernel_size[0]
    return (
        (rate > 1 or side > 3)
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.kernel_size == (side, side)
        and side % 2 == 1
        and layer.stride == (1, 1)
        and layer.dilation == (rate, rate)
        and layer.padding == (side // 2 * rate, side // 2 * rate)
        and layer.bias is None
    )


def depthwise(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Apply a layer to a map (B, C, H, W), float32 on a CPU."""
    out: Tensor = _Depthwise.apply(x, layer.weight, layer.dilation[0])  # type: ignore[no-untyped-call]
    return out


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rate: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rate = rate
        return _convolve(x, weight, rate)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors
        gradient = channels_last(gradients[0])
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _convolve(gradient, weight.flip(2, 3), ctx.rate)
        arrays = [each.permute(0, 2, 3, 1).numpy() for each in (channels_last(x), gradient)]
        batch, channels = x.shape[:2]
        side = weight.shape[2]
        sums = np.empty((batch, side * side, channels), np.float32)
        blocks = -(-channels // training_kernels.CHANNEL_BLOCK)
        kernel = training_kernels.depthwise_weight_gradient
        run_parallel(kernel, batch * blocks, *arrays, side, ctx.rate, sums)
        grad_weight = sums.sum(axis=0, dtype=np.float64).astype(np.float32)
        return grad_x, torch.from_numpy(grad_weight.T.copy()).view_as(weight), None


def _convolve(x: Tensor, weight: Tensor, rate: int) -> Tensor:
    padding = weight.shape[2] // 2 * rate
    return F.conv2d(x, weight, padding=padding, dilation=rate, groups=len(weight))
