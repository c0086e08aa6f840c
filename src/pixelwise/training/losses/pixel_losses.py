"""Losses that are a sum over pixels: cross entropy, focal, and cross entropy of the hard pixels.

Of a batch that is shared out over processes, each has the value of the whole batch and the gradient
of its own images.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.data.classes import IGNORE
from pixelwise.distributed.collectives import gathered, total

Reduction = Literal["mean", "sum"]


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean or sum of the cross entropy over the pixels that are not IGNORE; 0 where all are.

    logits: (B, C, H, W); labels: (B, H, W) class indices; weights: (C,) or None. With weights the
    mean is weighted. PyTorch's own mean divides by the number of counted pixels, and gives NaN for
    a crop that is all void.
    label_smoothing: the part of the target, 0..1, that is spread evenly over all classes
    (arXiv:1512.00567, section 7).
    """
    labels = labels.long()
    summed = F.cross_entropy(
        logits,
        labels,
        weight=weights,
        ignore_index=IGNORE,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return _reduced(summed, labels, weights, reduction)


def focal(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    gamma: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """The focal loss, (1 - p)^gamma * -log(p) of the true class's probability p, over all classes
    (arXiv:1708.02002, section 3.2); arguments and mean as in `cross_entropy`, which gamma 0 gives.

    Where the paper divides by the number of anchors with an object, this divides by that of pixels.
    """
    labels = labels.long()
    surprise = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    # 1 - p, exact where p is almost 1; the bound keeps the gradient of small gammas finite there.
    doubt = (-torch.expm1(-surprise)).clamp(min=torch.finfo(surprise.dtype).eps)
    values = doubt**gamma * surprise
    if weights is not None:
        values = values * weights[torch.where(labels != IGNORE, labels, 0)]
    # The sum is 0 at IGNORE, as the surprise is.
    return _reduced(values.sum(), labels, weights, reduction)


def ohem(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    threshold: float = 0.7,
    kept: float = 1 / 16,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean cross entropy of the hard pixels alone: online hard example mining (arXiv:1604.03540),
    pixel by pixel as the bootstrapping of arXiv:1605.06885.

    threshold: pixels are hard whose true class has a probability of at most this, over 0 to 1.
    kept: the part of the counted pixels, 0..1, that stays at least: the hardest. Others as in
    `cross_entropy`.
    """
    labels = labels.long()
    with torch.no_grad():
        surprise = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        counted = gathered(surprise[labels != IGNORE])
        bound = -math.log(threshold)
        if counted.numel():
            count = max(1, math.ceil(kept * counted.numel()))
            bound = min(bound, counted.topk(count, sorted=False).values.min().item())
        hard = torch.where(surprise >= bound, labels, IGNORE)
    return cross_entropy(logits, hard, weights, label_smoothing=label_smoothing)


def _reduced(
    summed: Tensor, labels: Tensor, weights: Tensor | None, reduction: Reduction
) -> Tensor:
    """The sum, or the mean, over the pixels of the whole batch."""
    summed = total(summed)
    return summed if reduction == "sum" else summed / _divisor(labels, weights)


def _divisor(labels: Tensor, weights: Tensor | None) -> Tensor:
    """The counted pixels' number or weight. A crop without a single one has a sum of 0: any divisor
    above 0 keeps it there."""
    counted = labels != IGNORE
    if weights is None:
        count = counted.sum()
    else:
        count = weights[torch.where(counted, labels, 0)].mul(counted).sum()
    count = total(count)
    return torch.where(count > 0, count, torch.ones_like(count))
