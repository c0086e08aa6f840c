"""Exponential moving average of the weights (arXiv:1806.05594, section 4; Polyak averaging)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def make_ema(model: nn.Module, *, max_decay: float) -> AveragedModel | None:
    """Create the moving average of the weights and of the running statistics of a model.

    Call `update_parameters(model)` after each update of the weights. It computes average = d *
    average + (1 - d) * weights with d = min(max_decay, (1 + t) / (10 + t)) after t updates, so that
    the average soon forgets the initial weights. The first update copies the weights.

    Args:
        model: The model to average.
        max_decay: The largest decay, at least 0 and below 1.

    Returns:
        The average, whose `module` is the network to validate and save; None for a decay of 0.
    """
    if max_decay == 0:
        return None

    def average(averaged: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - ema_decay(max_decay, int(updates)))
        else:  # the batch counters of batch normalization
            torch._foreach_copy_(averaged, current)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)  # type: ignore[arg-type]


def ema_decay(max_decay: float, updates: int) -> float:
    """Return the decay after a number of updates."""
    return min(max_decay, (1 + updates) / (10 + updates))
