"""Losses that compare regions, class by class: soft Dice and Lovasz-softmax.

Both treat the valid pixels of a batch as one set and average over the classes that occur in the
labels. If a batch is sharded they are exact for the whole batch: Dice adds up the sums of the
processes, Lovasz-softmax gathers their probabilities because it sorts all pixels by their errors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixelwise.data.classes import IGNORE
from pixelwise.distributed.collectives import all_gather_rows, all_reduce_sum


def dice(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the soft Dice loss, 1 - 2 * overlap / (predicted + true).

    After arXiv:1606.04797, section 3, with sums instead of sums of squares, as in
    arXiv:1707.03237.

    Args:
        logits: Logits (B, C, H, W).
        labels: Class indices and IGNORE (B, H, W).
        weights: Weights (C,) of the mean over classes, or None.

    Returns:
        The loss; 0 if all pixels are IGNORE.
    """
    probabilities, truth = _valid_pixels(logits, labels)
    sizes = all_reduce_sum(truth.sum(dim=0))
    overlap = all_reduce_sum((probabilities * truth).sum(dim=0))
    predicted = all_reduce_sum(probabilities.sum(dim=0))
    present = sizes > 0
    scores = 2 * overlap[present] / (predicted + sizes)[present]
    return _mean(1 - scores, present, weights) + 0 * predicted.sum()


def lovasz_softmax(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the Lovasz extension of 1 - IoU (arXiv:1705.08790, section 3 and algorithm 1).

    For the arguments see `dice`.
    """
    probabilities, truth = (all_gather_rows(rows) for rows in _valid_pixels(logits, labels))
    present = truth.any(dim=0)
    by_class = zip(probabilities.unbind(dim=1), truth.unbind(dim=1), present.tolist(), strict=True)
    losses = [_lovasz(probability, true) for probability, true, occurs in by_class if occurs]
    stacked = torch.stack(losses) if losses else probabilities.new_zeros(0)
    return _mean(stacked, present, weights) + 0 * probabilities.sum()


def _lovasz(probability: Tensor, truth: Tensor) -> Tensor:
    """Compute the loss of one class from probabilities (P,) and labels 0 or 1 (P,)."""
    errors = (truth - probability).abs()
    with torch.no_grad():
        order = errors.argsort(descending=True, stable=True)
        ordered = truth[order]
        size = truth.sum()
        # 1 - IoU if the first n pixels are wrong, for n = 1..P; the errors are weighted by its
        # increments.
        jaccard = 1 - (size - ordered.cumsum(0)) / (size + (1 - ordered).cumsum(0))
        jaccard[1:] = jaccard.diff()
        weights = torch.empty_like(jaccard)
        weights[order] = jaccard
    return errors @ weights


def _valid_pixels(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities and one-hot labels (P, C) of the P pixels that are not IGNORE."""
    valid = labels != IGNORE
    probabilities = logits.softmax(dim=1).permute(0, 2, 3, 1)[valid]
    truth = torch.zeros_like(probabilities)
    truth.scatter_(1, labels[valid].long()[:, None], 1)
    return probabilities, truth


def _mean(losses: Tensor, present: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean loss of the classes that occur, or 0 if there are none."""
    factors = torch.ones_like(losses) if weights is None else weights[present]
    total = factors.sum()
    return (losses * factors).sum() / torch.where(total > 0, total, torch.ones_like(total))
