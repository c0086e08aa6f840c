"""Differentiable sums and concatenations over all processes.

Each process then holds the loss of the whole batch and the gradient that flows through its own
images. The sum of these gradients over the processes is the gradient of the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pixelwise.distributed.shard import current_shard


def all_reduce_sum(x: Tensor) -> Tensor:
    """Return the sum of `x` over all processes, or `x` itself if the batch is not sharded."""
    if current_shard() is None:
        return x
    summed: Tensor = _AllReduceSum.apply(x)  # type: ignore[no-untyped-call]
    return summed


def all_gather_rows(x: Tensor) -> Tensor:
    """Concatenate the rows of `x` (N, ...) of all processes by rank; N may differ between them.

    Returns `x` itself if the batch is not sharded.
    """
    shard = current_shard()
    if shard is None:
        return x
    rows: Tensor = _AllGatherRows.apply(x, shard.rank, shard.world_size)  # type: ignore[no-untyped-call]
    return rows


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.detach().clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class _AllGatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int, world_size: int) -> Tensor:
        lengths = torch.zeros(world_size, dtype=torch.long, device=x.device)
        lengths[rank] = len(x)
        dist.all_reduce(lengths)
        counts = [int(count) for count in lengths]
        padded = x.new_zeros(max(counts), *x.shape[1:])
        padded[: len(x)] = x.detach()
        gathered = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(gathered, padded)
        ctx.own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        return torch.cat([rows[:count] for rows, count in zip(gathered, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0][ctx.own], None, None
