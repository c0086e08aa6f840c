"""Batch normalization and dropout that also work on a batch sharded over processes.

Tensors are (B, C, H, W) float unless stated otherwise.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.distributed.shard import current_shard
from pixelwise.distributed.sync_batch_norm import sync_batch_norm
from pixelwise.ops.numba_support import require_numba


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that accepts a single value per channel and sharded batches.

    A batch of one has a single value per channel after global pooling, so it has no variance.
    PyTorch raises an error for it in training; this layer uses its running statistics instead, as
    in evaluation. For a batch that is sharded over processes, the statistics cover the
    global batch.

    Attributes:
        compiled: Whether training uses the compiled kernel. Set it with `use_compiled`.
    """

    compiled = False

    def forward(self, input: Tensor) -> Tensor:
        return self.normalize(input, None)

    def normalize(self, input: Tensor, activation: nn.Module | None) -> Tensor:
        """Normalize, then apply `activation`; the compiled kernel does both at once."""
        shard = current_shard() if self.training else None
        images = input.shape[0] if shard is None else shard.images
        single_value = self.training and images * input.shape[2] * input.shape[3] <= 1
        if self._can_use_compiled(input) and shard is None and not single_value:
            from pixelwise.ops.fused_batch_norm import LIMITS, normalize

            activation_type = None if activation is None else type(activation)
            if activation_type in LIMITS:
                return normalize(input, self, activation_type)
        if single_value:
            out = F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        elif shard is not None:
            out = sync_batch_norm(self, input, shard)
        else:
            out = super().forward(input)
        return out if activation is None else cast(Tensor, activation(out))

    def _can_use_compiled(self, input: Tensor) -> bool:
        enabled = self.compiled and self.training
        return enabled and input.dtype == torch.float32 and input.device.type == "cpu"


def use_compiled(model: nn.Module, enabled: bool = True) -> None:
    """Select the kernels that `model` uses for training on a CPU.

    Both kinds give the same values and gradients up to floating-point rounding.

    Args:
        model: Any network. Its `BatchNorm2d` layers are switched in place.
        enabled: True for kernels that numba compiles, False for PyTorch's.

    Raises:
        InputError: If numba is required but not installed.
    """
    if enabled:
        require_numba("training with kernels = 'compiled'")
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            module.compiled = enabled and _has_default_form(module)


def _has_default_form(norm: nn.BatchNorm2d) -> bool:
    """Whether the layer has the parameters and statistics that the compiled kernel needs."""
    return norm.affine and norm.track_running_stats and norm.momentum is not None


class Dropout(nn.Dropout):
    """Dropout with the same mask for a batch in one process and sharded over several.

    All processes have the same random state. Each draws the mask of the global batch and uses the
    rows of its own images.
    """

    def forward(self, input: Tensor) -> Tensor:
        shard = current_shard() if self.training else None
        if shard is None:
            return super().forward(input)
        global_batch = input.new_ones(shard.images, *input.shape[1:])
        if input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last):
            # The memory format decides the order in which the mask is drawn.
            global_batch = global_batch.contiguous(memory_format=torch.channels_last)
        return input * super().forward(global_batch)[shard.own]
