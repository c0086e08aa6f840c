"""Losses that are a sum over pixels: cross entropy, focal loss, and online hard example mining.

If a batch is sharded, each process computes the value of the whole batch and the gradient of its
own images.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.data.classes import IGNORE
from pixelwise.distributed.collectives import all_gather_rows, all_reduce_sum

Reduction = Literal["mean", "sum"]


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute the cross entropy over the pixels that are not IGNORE.

    Args:
        logits: Logits (B, C, H, W).
        labels: Class indices and IGNORE (B, H, W).
        weights: Class weights (C,) or None. With weights the mean is weighted.
        reduction: Mean or sum over the pixels.
        label_smoothing: Fraction (0..1) of the target that is spread evenly over all classes
            (arXiv:1512.00567, section 7).

    Returns:
        The loss; 0 if all pixels are IGNORE, where the mean of PyTorch is NaN.
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
    return _reduce(summed, labels, weights, reduction)


def focal(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    gamma: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Compute the focal loss (arXiv:1708.02002, section 3.2).

    It is (1 - p)^gamma * -log(p) for a probability p of the true class. The paper divides by the
    number of anchors with an object, this function by the number of pixels.

    Args:
        logits: Logits (B, C, H, W).
        labels: Class indices and IGNORE (B, H, W).
        weights: Class weights (C,) or None.
        gamma: Exponent. With 0 the loss is `cross_entropy`.
        reduction: Mean or sum over the pixels, as in `cross_entropy`.
    """
    labels = labels.long()
    entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    # 1 - p, exact if p is almost 1; the bound keeps the gradient finite there for small gammas.
    complement = (-torch.expm1(-entropy)).clamp(min=torch.finfo(entropy.dtype).eps)
    values = complement**gamma * entropy
    if weights is not None:
        values = values * weights[torch.where(labels != IGNORE, labels, 0)]
    # IGNORE adds 0 to the sum: its cross entropy is 0.
    return _reduce(values.sum(), labels, weights, reduction)


def ohem(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    threshold: float = 0.7,
    min_kept: float = 1 / 16,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute the mean cross entropy of the hard pixels: online hard example mining.

    After arXiv:1604.03540, per pixel as in the bootstrapping of arXiv:1605.06885.

    Args:
        logits: Logits (B, C, H, W).
        labels: Class indices and IGNORE (B, H, W).
        weights: Class weights (C,) or None.
        threshold: A pixel is hard if its true class has at most this probability (0..1).
        min_kept: Minimum fraction (0..1) of the valid pixels that counts as hard.
        label_smoothing: As in `cross_entropy`.
    """
    labels = labels.long()
    with torch.no_grad():
        entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        valid = all_gather_rows(entropy[labels != IGNORE])
        bound = -math.log(threshold)
        if valid.numel():
            count = max(1, math.ceil(min_kept * valid.numel()))
            bound = min(bound, valid.topk(count, sorted=False).values.min().item())
        hard = torch.where(entropy >= bound, labels, IGNORE)
    return cross_entropy(logits, hard, weights, label_smoothing=label_smoothing)


def _reduce(summed: Tensor, labels: Tensor, weights: Tensor | None, reduction: Reduction) -> Tensor:
    """Return the sum or the mean over the pixels of the whole batch."""
    summed = all_reduce_sum(summed)
    return summed if reduction == "sum" else summed / _divisor(labels, weights)


def _divisor(labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return the number or the total weight of the valid pixels, or 1 if there are none."""
    valid = labels != IGNORE
    if weights is None:
        count = valid.sum()
    else:
        count = weights[torch.where(valid, labels, 0)].mul(valid).sum()
    count = all_reduce_sum(count)
    return torch.where(count > 0, count, torch.ones_like(count))
