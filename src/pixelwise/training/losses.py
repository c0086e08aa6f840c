"""What is minimised."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.data.classes import IGNORE
from pixelwise.data.statistics import median_frequency
from pixelwise.errors import InputError
from pixelwise.training.recipe import LossRecipe


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Mean or sum of the cross entropy over the pixels that are not IGNORE; 0 where all are.

    logits: (B, C, H, W); labels: (B, H, W) class indices; weights: (C,) or None. With weights the
    mean is weighted. PyTorch's own mean divides by the number of counted pixels, and gives NaN for
    a crop that is all void.
    """
    labels = labels.long()
    total = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORE, reduction="sum")
    if reduction == "sum":
        return total
    counted = labels != IGNORE
    if weights is None:
        count = counted.sum()
    else:
        count = weights[torch.where(counted, labels, 0)].mul(counted).sum()
    # A crop without a single counted pixel has a sum of 0: any divisor above 0 keeps it there.
    return total / torch.where(count > 0, count, torch.ones_like(count))


def shrink(labels: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Labels (B, H, W) to (B, *size): those at evenly spaced pixels from the first to the last.

    321 to 41 takes every eighth, as the authors' DeepLab does.
    """
    rows, columns = (
        torch.linspace(0, full - 1, small, device=labels.device).round().long()
        for full, small in zip(labels.shape[1:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]


def class_weights(recipe: LossRecipe, counts: NDArray[np.int64]) -> Tensor | None:
    """The weights (C,) that the recipe asks for, None for none. Raises InputError for a misfit."""
    chosen = recipe.class_weights
    assert chosen != "auto", "the recipe has to be planned first"
    if chosen == "none":
        return None
    if chosen == "median_frequency":
        return torch.tensor(median_frequency(counts), dtype=torch.float32)
    if len(chosen) != len(counts) or min(chosen) < 0 or max(chosen) == 0:
        raise InputError(
            f"loss.class_weights has {len(chosen)} numbers: give {len(counts)}, one for each "
            "class, none below 0 and not all 0"
        )
    return torch.tensor(chosen, dtype=torch.float32)
