"""Batch normalization fused with the following activation.

PyTorch reads or writes the maps fourteen times in forward and backward together, this operation
eight times. It keeps one map for the gradient instead of two.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelwise.ops import training_kernels
from pixelwise.ops.memory_format import channels_last, flat_values
from pixelwise.ops.thread_pool import run_parallel

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LIMITS: dict[type[nn.Module] | None, tuple[float, float]] = {
    None: (-inf, inf),
    nn.ReLU: (0.0, inf),
    nn.ReLU6: (0.0, 6.0),
}
"""The range to which each activation clamps values."""

_ROW_LENGTH = 64  # values; positions with fewer channels are combined into rows of about this


def normalize(x: Tensor, norm: nn.BatchNorm2d, activation: type[nn.Module] | None) -> Tensor:
    """Normalize a map with batch statistics and apply the activation.

    Args:
        x: Map (B, C, H, W), float32 on a CPU, with at least two values per channel.
        norm: A layer with weight, bias and running statistics, which are updated as PyTorch does.
        activation: A key of LIMITS.
    """
    out: Tensor = _Normalize.apply(  # type: ignore[no-untyped-call]
        x, norm.weight, norm.bias, norm, LIMITS[activation]
    )
    return out


class _Normalize(torch.autograd.Function):
    @staticmethod
    @np.errstate(invalid="ignore", over="ignore")  # non-finite values propagate, as in PyTorch
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: nn.BatchNorm2d,
        limits: tuple[float, float],
    ) -> Tensor:
        x = channels_last(x)
        values, rows = flat_values(x), _Rows(x)
        shift = values[: rows.channels].copy()  # close to the mean, for accurate squares
        sums, squares = rows.sums(training_kernels.moments, values, *rows.tile(shift))
        offset = sums / rows.count
        mean = shift + offset
        variance = np.maximum(squares / rows.count - offset * offset, 0)
        _update_running_statistics(norm, mean, variance * (rows.count / (rows.count - 1)))
        std = np.sqrt(variance + norm.eps)
        scale = weight.numpy() / std
        ctx.save_for_backward(x)
        ctx.statistics = mean, std, scale
        ctx.activation = *rows.tile(scale, bias.numpy() - mean * scale), *map(np.float32, limits)
        out = torch.empty_like(x)
        arguments = values, *ctx.activation, flat_values(out)
        run_parallel(training_kernels.normalize, rows.blocks, *arguments)
        return out

    @staticmethod
    @np.errstate(invalid="ignore", over="ignore")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        mean, std, scale = ctx.statistics
        values, rows = flat_values(x), _Rows(x)
        gradient = flat_values(channels_last(gradients[0]))
        arguments = values, gradient, *ctx.activation, *rows.tile(mean)
        grad_bias, products = rows.sums(training_kernels.gradient_moments, *arguments)
        grad_weight = products / std
        out = None
        if ctx.needs_input_grad[0]:
            out = torch.empty_like(x)
            factor = -scale / rows.count
            terms = rows.tile(factor * grad_weight / std, factor * grad_bias)
            run_parallel(
                training_kernels.input_gradient, rows.blocks, *arguments, *terms, flat_values(out)
            )
        return out, _float(grad_weight), _float(grad_bias), None, None


class _Rows:
    """The division of a map into rows, each with the channels of one or several positions.

    Attributes:
        count: Number of positions.
        blocks: Number of blocks of rows, which threads divide among themselves.
    """

    def __init__(self, x: Tensor) -> None:
        self.channels = x.shape[1]
        self.count = x.numel() // self.channels
        self.positions = max(1, _ROW_LENGTH // self.channels)
        while self.count % self.positions:
            self.positions -= 1
        self.blocks = -(-self.count // (self.positions * training_kernels.BLOCK))

    def tile(self, *numbers: NDArray[Any]) -> list[Floats]:
        """Repeat numbers per channel (C,) for all positions of a row."""
        return [np.tile(each.astype(np.float32), self.positions) for each in numbers]

    def sums(self, function: Callable[..., None], *arguments: Any) -> tuple[Doubles, Doubles]:
        """Return the two sums (C,) over all blocks that a kernel computes per block."""
        shape = (2, self.blocks, self.positions * self.channels)
        block_sums = np.empty(shape, np.float32)
        run_parallel(function, self.blocks, *arguments, *block_sums)
        totals = block_sums.sum(axis=1, dtype=np.float64)
        first, second = totals.reshape(2, self.positions, self.channels).sum(axis=1)
        return first, second


def _update_running_statistics(norm: nn.BatchNorm2d, mean: Doubles, variance: Doubles) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    for running, new in ((norm.running_mean, mean), (norm.running_var, variance)):
        running.mul_(1 - norm.momentum).add_(_float(new), alpha=norm.momentum)
    norm.num_batches_tracked.add_(1)


def _float(numbers: Doubles) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float32))
