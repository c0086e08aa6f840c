"""Batch normalization and the activation after it, as one operation.

PyTorch's own pass over the maps fourteen times, forward and back; this eight times, and it keeps
one map for the gradient in place of two.
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
from pixelwise.ops.memory_format import channels_last, memory
from pixelwise.ops.thread_pool import share

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LIMITS: dict[type[nn.Module] | None, tuple[float, float]] = {
    None: (-inf, inf),
    nn.ReLU: (0.0, inf),
    nn.ReLU6: (0.0, 6.0),
}
"""The activations: what they hold values within."""

_WIDTH = 64  # values of a row: positions with fewer channels are taken several at a time


def normalize(x: Tensor, norm: nn.BatchNorm2d, activation: type[nn.Module] | None) -> Tensor:
    """What `norm` in training, and then `activation`, make of (B, C, H, W) float32 on a CPU.

    norm: with a weight, a bias and running statistics, which are brought forward as PyTorch does.
    x: two positions at least.
    """
    out: Tensor = _Normalize.apply(  # type: ignore[no-untyped-call]
        x, norm.weight, norm.bias, norm, LIMITS[activation]
    )
    return out


class _Normalize(torch.autograd.Function):
    @staticmethod
    @np.errstate(invalid="ignore", over="ignore")  # what is not finite goes through, as in PyTorch
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: nn.BatchNorm2d,
        limits: tuple[float, float],
    ) -> Tensor:
        x = channels_last(x)
        values, rows = memory(x), _Rows(x)
        shift = values[: rows.channels].copy()  # near the mean: the squares lose little
        sums, squares = rows.sums(training_kernels.moments, values, *rows.spread(shift))
        left = sums / rows.count
        mean = shift + left
        variance = np.maximum(squares / rows.count - left * left, 0)
        _bring_forward(norm, mean, variance * (rows.count / (rows.count - 1)))
        std = np.sqrt(variance + norm.eps)
        scale = weight.numpy() / std
        ctx.save_for_backward(x)
        ctx.statistics = mean, std, scale
        ctx.activation = *rows.spread(scale, bias.numpy() - mean * scale), *map(np.float32, limits)
        out = torch.empty_like(x)
        share(training_kernels.normalize, rows.blocks, values, *ctx.activation, memory(out))
        return out

    @staticmethod
    @np.errstate(invalid="ignore", over="ignore")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        mean, std, scale = ctx.statistics
        values, rows = memory(x), _Rows(x)
        given = values, memory(channels_last(gradients[0])), *ctx.activation, *rows.spread(mean)
        of_bias, products = rows.sums(training_kernels.gradient_moments, *given)
        of_weight = products / std
        out = None
        if ctx.needs_input_grad[0]:
            out = torch.empty_like(x)
            share_of_all = -scale / rows.count
            both = rows.spread(share_of_all * of_weight / std, share_of_all * of_bias)
            share(training_kernels.gradient_of_x, rows.blocks, *given, *both, memory(out))
        return out, _float(of_weight), _float(of_bias), None, None


class _Rows:
    """How a map is cut into rows of channels, those of several positions where they are few.

    count: positions. blocks: of rows, which the threads share.
    """

    def __init__(self, x: Tensor) -> None:
        self.channels = x.shape[1]
        self.count = x.numel() // self.channels
        self.positions = max(1, _WIDTH // self.channels)
        while self.count % self.positions:
            self.positions -= 1
        self.blocks = -(-self.count // (self.positions * training_kernels.BLOCK))

    def spread(self, *numbers: NDArray[Any]) -> list[Floats]:
        """Numbers of the channels (C,) for a whole row."""
        return [np.tile(each.astype(np.float32), self.positions) for each in numbers]

    def sums(self, function: Callable[..., None], *arguments: Any) -> tuple[Doubles, Doubles]:
        """The two sums (C,) that a function takes of each block, of all of them."""
        shape = (2, self.blocks, self.positions * self.channels)
        parts = np.empty(shape, np.float32)
        share(function, self.blocks, *arguments, *parts)
        whole = parts.sum(axis=1, dtype=np.float64)
        first, second = whole.reshape(2, self.positions, self.channels).sum(axis=1)
        return first, second


def _bring_forward(norm: nn.BatchNorm2d, mean: Doubles, variance: Doubles) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    for running, new in ((norm.running_mean, mean), (norm.running_var, variance)):
        running.mul_(1 - norm.momentum).add_(_float(new), alpha=norm.momentum)
    norm.num_batches_tracked.add_(1)


def _float(numbers: Doubles) -> Tensor:
    return torch.from_numpy(numbers.astype(np.float32))
