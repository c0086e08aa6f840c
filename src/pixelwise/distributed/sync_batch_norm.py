"""Batch normalization over a sharded batch.

PyTorch's SyncBatchNorm has kernels for GPUs only. On a CPU the statistics of the shards are merged
(Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances,
1979) in double precision: each variance is a mean of squared distances from a mean, so no precision
is lost if the mean is large.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm

from pixelwise.distributed.shard import BatchShard


def sync_batch_norm(norm: nn.BatchNorm2d, x: Tensor, shard: BatchShard) -> Tensor:
    """Normalize a shard with the statistics of the whole batch, in training.

    The running statistics of `norm` are updated to the same values on all ranks.

    Args:
        norm: The layer.
        x: The feature maps of this process (B, C, H, W). B may be 0.
        shard: The position of `x` in the batch.
    """
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:  # the mean over all batches
            momentum = 1 / int(norm.num_batches_tracked)
    weights = (x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps, momentum)
    if x.device.type == "cpu":
        normalized: Tensor = _SyncBatchNorm.apply(*weights, shard)  # type: ignore[no-untyped-call]
    else:
        normalized = SyncBatchNorm.apply(*weights, dist.group.WORLD, shard.world_size)  # type: ignore[no-untyped-call]
    return normalized


class _SyncBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        eps: float,
        momentum: float,
        shard: BatchShard,
    ) -> Tensor:
        positions = x.shape[2] * x.shape[3]
        values = shard.images * positions
        mean, variance = _batch_statistics(x, shard)
        running_mean.lerp_(mean.to(running_mean), momentum)
        running_var.lerp_((variance * (values / (values - 1))).to(running_var), momentum)
        ctx.values = values
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        if len(x) == 0:
            return torch.empty_like(x)
        return F.batch_norm(x, mean.to(weight), variance.to(weight), weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight, mean, inverse_std = ctx.saved_tensors
        # (2, C): this shard's sums of grad * normalized x and of grad, which are the gradients of
        # weight and bias.
        sums = weight.new_zeros(2, len(mean))
        if len(x):
            _, sums[0], sums[1] = torch.ops.aten.native_batch_norm_backward(
                grad, x, weight, None, None, mean.to(weight), inverse_std.to(weight), True, 0.0,
                [False, True, True],
            )  # fmt: skip
        batch_sums = sums.to(torch.float64, copy=True)
        dist.all_reduce(batch_sums)
        weight_term, bias_term = batch_sums / ctx.values
        slope = weight * inverse_std
        factors = (mean, slope, -slope * inverse_std * weight_term, -slope * bias_term)
        center, scale, tilt, shift = (f.to(weight).view(1, -1, 1, 1) for f in factors)
        grad_x = torch.addcmul(shift, grad, scale).addcmul_(x - center, tilt)
        return grad_x.to(x.dtype), sums[0], sums[1], None, None, None, None, None


def _batch_statistics(x: Tensor, shard: BatchShard) -> tuple[Tensor, Tensor]:
    """Return mean and variance (C,) of the whole batch, float64, bit-identical on all ranks."""
    own = torch.zeros(2, x.shape[1], dtype=torch.float64)
    if len(x):
        wide = x.float() if x.dtype == torch.bfloat16 else x
        own[0], own[1] = torch.batch_norm_update_stats(wide, None, None, 0.0)
    by_rank = [torch.empty_like(own) for _ in range(shard.world_size)]
    dist.all_gather(by_rank, own)
    fractions = torch.tensor(shard.sizes, dtype=torch.float64)[:, None] / shard.images
    means, variances = torch.stack(by_rank, dim=1)
    mean = (fractions * means).sum(dim=0)
    return mean, (fractions * (variances + (means - mean) ** 2)).sum(dim=0)
