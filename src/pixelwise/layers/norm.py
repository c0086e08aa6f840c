"""Batch normalization and dropout that also work on a batch distributed over processes.

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
    """Batch normalization that survives a channel with a single value.

    A batch of one after global pooling has no variance to normalize with; PyTorch raises there in
    training. This layer uses its running statistics for such a batch, as it would at test time.
    The statistics of a batch that is shared out over processes are those of the whole batch.

    compiled: whether training takes the faster form (`use_compiled`).
    """

    compiled = False

    def forward(self, input: Tensor) -> Tensor:
        return self.activated(input, None)

    def activated(self, input: Tensor, activation: nn.Module | None) -> Tensor:
        """Normalized, then through `activation`: in one operation where it can be."""
        share = current_shard() if self.training else None
        images = input.shape[0] if share is None else share.images
        single = self.training and images * input.shape[2] * input.shape[3] <= 1
        if self._takes_compiled(input) and share is None and not single:
            from pixelwise.ops.fused_batch_norm import LIMITS, normalize

            kind = None if activation is None else type(activation)
            if kind in LIMITS:
                return normalize(input, self, kind)
        if single:
            out = F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        elif share is not None:
            out = sync_batch_norm(self, input, share)
        else:
            out = super().forward(input)
        return out if activation is None else cast(Tensor, activation(out))

    def _takes_compiled(self, input: Tensor) -> bool:
        wanted = self.compiled and self.training
        return wanted and input.dtype == torch.float32 and input.device.type == "cpu"


def use_compiled(model: nn.Module, wanted: bool = True) -> None:
    """Have the training of `model` on a CPU use the operations that numba compiles, or the plain.

    Values and gradients are the same to rounding, not bit for bit. Raises InputError where numba
    is not installed.
    """
    if wanted:
        require_numba("training with kernels = 'compiled'")
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            module.compiled = wanted and _plain(module)


def _plain(norm: nn.BatchNorm2d) -> bool:
    """Whether it has all that the compiled form takes for granted."""
    return norm.affine and norm.track_running_stats and norm.momentum is not None


class Dropout(nn.Dropout):
    """Dropout whose draws are those of the whole batch where it is shared out over processes: they
    have the same random state, and each takes the rows of its own images."""

    def forward(self, input: Tensor) -> Tensor:
        share = current_shard() if self.training else None
        if share is None:
            return super().forward(input)
        whole = input.new_ones(share.images, *input.shape[1:])
        if input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last):
            whole = whole.contiguous(memory_format=torch.channels_last)  # drawn in this order
        return input * super().forward(whole)[share.own]
