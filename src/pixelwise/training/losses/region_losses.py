"""Losses that compare regions, a class at a time: soft Dice, and Lovasz-softmax.

Both look at all counted pixels of a batch together, and average over the classes that its truth
holds: a class that is not there has no region to be compared with. Of a batch that is shared out
over processes that is the whole batch, exactly: Dice adds up the processes' sums, Lovasz-softmax
gathers their probabilities, since it orders all pixels by their errors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixelwise.data.classes import IGNORE
from pixelwise.distributed.collectives import gathered, total


def dice(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - 2 * overlap / (predicted + true), of probabilities; 0 where all pixels are IGNORE.

    logits: (B, C, H, W); labels: (B, H, W) class indices; weights: (C,) of the mean over classes,
    or None. After arXiv:1606.04797, section 3, with plain sums in place of those of squares, as in
    arXiv:1707.03237.
    """
    probabilities, truth = _counted(logits, labels)
    sizes = total(truth.sum(dim=0))
    overlap = total((probabilities * truth).sum(dim=0))
    predicted = total(probabilities.sum(dim=0))
    present = sizes > 0
    scores = 2 * overlap[present] / (predicted + sizes)[present]
    return _mean(1 - scores, present, weights) + 0 * predicted.sum()


def lovasz_softmax(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The Lovasz extension of 1 - IoU (arXiv:1705.08790, section 3 and algorithm 1); arguments as
    in `dice`."""
    probabilities, truth = (gathered(rows) for rows in _counted(logits, labels))
    present = truth.any(dim=0)
    pairs = zip(probabilities.unbind(dim=1), truth.unbind(dim=1), present.tolist(), strict=True)
    losses = [_lovasz(own, true) for own, true, there in pairs if there]
    stacked = torch.stack(losses) if losses else probabilities.new_zeros(0)
    return _mean(stacked, present, weights) + 0 * probabilities.sum()


def _lovasz(probability: Tensor, truth: Tensor) -> Tensor:
    """One class: (P,) probabilities, (P,) 0 or 1."""
    errors = (truth - probability).abs()
    with torch.no_grad():
        order = errors.argsort(descending=True, stable=True)
        ordered = truth[order]
        size = truth.sum()
        # 1 - IoU if the first n pixels are wrong, for n = 1..P; its increments weigh the errors.
        jaccard = 1 - (size - ordered.cumsum(0)) / (size + (1 - ordered).cumsum(0))
        jaccard[1:] = jaccard.diff()
        weights = torch.empty_like(jaccard)
        weights[order] = jaccard
    return errors @ weights


def _counted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and one-hot truth, (P, C) each, of the P pixels that are not IGNORE."""
    counted = labels != IGNORE
    probabilities = logits.softmax(dim=1).permute(0, 2, 3, 1)[counted]
    truth = torch.zeros_like(probabilities)
    truth.scatter_(1, labels[counted].long()[:, None], 1)
    return probabilities, truth


def _mean(losses: Tensor, present: Tensor, weights: Tensor | None) -> Tensor:
    """Of the present classes' losses; 0 where there are none."""
    shares = torch.ones_like(losses) if weights is None else weights[present]
    total = shares.sum()
    return (losses * shares).sum() / torch.where(total > 0, total, torch.ones_like(total))
