"""Sums and lists over all processes of a shared batch, with the gradient of the own part.

Each process then has the loss of the whole batch, and of its gradient the part that flows through
its own images: added up over the processes these are the gradient of the whole.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pixelwise.distributed.shard import current_shard


def total(x: Tensor) -> Tensor:
    """The sum of `x` over the processes that share the batch; `x` itself where none do."""
    if current_shard() is None:
        return x
    summed: Tensor = _Total.apply(x)  # type: ignore[no-untyped-call]
    return summed


def gathered(x: Tensor) -> Tensor:
    """The rows `x` (N, ...) of all processes, in their order, N differing between them; `x` itself
    where the batch is not shared."""
    share = current_shard()
    if share is None:
        return x
    rows: Tensor = _Gathered.apply(x, share.rank, share.processes)  # type: ignore[no-untyped-call]
    return rows


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.detach().clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int, processes: int) -> Tensor:
        lengths = torch.zeros(processes, dtype=torch.long, device=x.device)
        lengths[rank] = len(x)
        dist.all_reduce(lengths)
        counts = [int(count) for count in lengths]
        padded = x.new_zeros(max(counts), *x.shape[1:])
        padded[: len(x)] = x.detach()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        ctx.own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0][ctx.own], None, None
