"""Batch normalization over a batch that is shared out.

PyTorch's own SyncBatchNorm has kernels for GPUs alone. On a CPU the statistics of the processes'
parts are merged (Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing
sample variances, 1979), in double precision: each is the mean of squared distances from a mean, so
nothing is lost where the mean is large.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm

from pixelwise.distributed.shard import BatchShard


def sync_batch_norm(norm: nn.BatchNorm2d, x: Tensor, share: BatchShard) -> Tensor:
    """What `norm` makes of this process's part `x` (B, C, H, W) of the batch in training.

    Its running statistics are updated alike in all processes. B may be 0.
    """
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:  # the mean over all batches
            momentum = 1 / int(norm.num_batches_tracked)
    weights = (x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps, momentum)
    if x.device.type == "cpu":
        normalized: Tensor = _SyncBatchNorm.apply(*weights, share)  # type: ignore[no-untyped-call]
    else:
        normalized = SyncBatchNorm.apply(*weights, dist.group.WORLD, share.processes)  # type: ignore[no-untyped-call]
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
        share: BatchShard,
    ) -> Tensor:
        positions = x.shape[2] * x.shape[3]
        values = share.images * positions
        mean, variance = _statistics(x, share)
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
        x, weight, mean, inverse = ctx.saved_tensors
        # (2, C): the own sums of grad * normalized x and of grad, the gradients of weight and bias.
        sums = weight.new_zeros(2, len(mean))
        if len(x):
            _, sums[0], sums[1] = torch.ops.aten.native_batch_norm_backward(
                grad, x, weight, None, None, mean.to(weight), inverse.to(weight), True, 0.0,
                [False, True, True],
            )  # fmt: skip
        whole = sums.to(torch.float64, copy=True)
        dist.all_reduce(whole)
        along, across = whole / ctx.values
        slope = weight * inverse
        factors = (mean, slope, -slope * inverse * along, -slope * across)
        center, scale, tilt, shift = (f.to(weight).view(1, -1, 1, 1) for f in factors)
        grad_x = torch.addcmul(shift, grad, scale).addcmul_(x - center, tilt)
        return grad_x.to(x.dtype), sums[0], sums[1], None, None, None, None, None


def _statistics(x: Tensor, share: BatchShard) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) over the whole batch, float64, the same bits in all processes."""
    own = torch.zeros(2, x.shape[1], dtype=torch.float64)
    if len(x):
        wide = x.float() if x.dtype == torch.bfloat16 else x
        own[0], own[1] = torch.batch_norm_update_stats(wide, None, None, 0.0)
    parts = [torch.empty_like(own) for _ in range(share.processes)]
    dist.all_gather(parts, own)
    shares = torch.tensor(share.sizes, dtype=torch.float64)[:, None] / share.images
    means, variances = torch.stack(parts, dim=1)
    mean = (shares * means).sum(dim=0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(dim=0)
