"""Losses that compare regions, class by class: soft Dice and Lovasz-softmax.

Both treat the valid pixels of a batch as one set and average over the classes that occur in the
labels. If a batch is sharded they are exact for the whole batch: Dice adds up the sums of the
processes, and Lovasz-softmax their histograms of the errors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixelwise.data.classes import IGNORE
from pixelwise.distributed.collectives import all_reduce_sum

LEVELS = 2**16


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

    Errors are sorted into LEVELS levels, which is several times as fast as an exact order and
    changes the loss by less than 1 / LEVELS. For the arguments see `dice`.
    """
    probabilities, truth = _valid_pixels(logits, labels)
    sizes = all_reduce_sum(truth.sum(dim=0))
    present = sizes > 0
    by_class = zip(probabilities.unbind(dim=1), truth.unbind(dim=1), present.tolist(), strict=True)
    losses = [_lovasz(probability, true) for probability, true, occurs in by_class if occurs]
    stacked = torch.stack(losses) if losses else probabilities.new_zeros(0)
    return _mean(all_reduce_sum(stacked), present, weights) + 0 * probabilities.sum()


def _lovasz(probability: Tensor, truth: Tensor) -> Tensor:
    """Compute this process's part of the loss of one class.

    Args:
        probability: Probabilities of the pixels of this process (P,).
        truth: 1 for pixels of the class, else 0 (P,).
    """
    errors = (truth - probability).abs()
    with torch.no_grad():
        level = ((1 - errors) * LEVELS).long().clamp_(0, LEVELS - 1)  # the largest errors first
        keys = level + LEVELS * truth.long()
        counts = all_reduce_sum(torch.bincount(keys, minlength=2 * LEVELS).double())
        weights: Tensor = _level_weights(*counts.view(2, LEVELS)).to(errors.dtype)[keys]
    return errors @ weights


def _level_weights(others: Tensor, members: Tensor) -> Tensor:
    """Return the weights of the errors of other pixels and of members of a class, by level.

    They are the increments of 1 - IoU when the pixels of one level after the other become wrong.
    Within a level, either kind comes first with equal probability.

    Args:
        others: Number of pixels of other classes on each level (LEVELS,).
        members: Number of pixels of the class (LEVELS,).

    Returns:
        Weights (2 * LEVELS,).
    """
    size = members.sum()

    def loss(wrong_others: Tensor, wrong_members: Tensor) -> Tensor:
        return 1 - (size - wrong_members) / (size + wrong_others)

    others_after, members_after = others.cumsum(0), members.cumsum(0)
    others_before, members_before = others_after - others, members_after - members
    both = loss(others_after, members_after) - loss(others_before, members_before)
    other_first = loss(others_after, members_before) - loss(others_before, members_before)
    member_first = loss(others_before, members_after) - loss(others_before, members_before)
    of_others = (other_first + both - member_first) / 2
    return torch.cat([of_others / others.clamp(min=1), (both - of_others) / members.clamp(min=1)])


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
