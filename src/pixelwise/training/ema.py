"""The exponential moving average of the weights (arXiv:1806.05594, section 4; Polyak averaging)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def make_ema(model: nn.Module, *, limit: float) -> AveragedModel | None:
    """The average of `model`, None for a decay of 0. limit: the largest decay, below 1.

    After each update call `update_parameters`: average = d * average + (1 - d) * weights, with
    d = min(limit, (1 + t) / (10 + t)) after t updates, so that the first weights are soon
    forgotten; it begins as the weights after the first. Batch normalization's running statistics
    are averaged likewise. `module` is the network to score and to keep.
    """
    if limit == 0:
        return None

    def average(averaged: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - ema_decay_after(limit, int(updates)))
        else:  # batches that were counted
            torch._foreach_copy_(averaged, current)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)  # type: ignore[arg-type]


def ema_decay_after(limit: float, updates: int) -> float:
    """The decay after a number of updates."""
    return min(limit, (1 + updates) / (10 + updates))
