"""The loss as a recipe states it: terms, weights of the classes, and the size it is taken at."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.data.dataset_statistics import median_frequency, root_median_frequency
from pixelwise.errors import InputError
from pixelwise.recipes.loss_terms import parse_terms
from pixelwise.recipes.schema import LossRecipe
from pixelwise.training.losses.boundary_loss import require_scipy
from pixelwise.training.losses.registry import LOSSES

_BY_FREQUENCY = {
    "median_frequency": median_frequency,
    "root_median_frequency": root_median_frequency,
}


class Loss:
    """Logits (B, C, h, w) and labels (B, H, W) to the number that is minimized.

    counts: (C,) pixels of each class in training, for class weights that follow from them.
    whole: whether logits are wanted at the image's size, not the map's. Raises InputError for
    class weights that do not fit, and where a loss needs a package that is not installed.
    """

    def __init__(
        self, recipe: LossRecipe, counts: NDArray[np.int64], *, device: torch.device
    ) -> None:
        weights = class_weights(recipe, counts)
        self.weights = None if weights is None else weights.to(device)
        self.whole = recipe.resolution == "image"
        terms = parse_terms(recipe.name)
        self.terms = [(term.factor, LOSSES[term.name](recipe)) for term in terms]
        if any(term.name == "boundary" for term in terms):
            require_scipy()

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not self.whole:
            labels = shrink(labels, size=(logits.shape[2], logits.shape[3]))
        logits = logits.float()
        values = [factor * loss(logits, labels, self.weights) for factor, loss in self.terms]
        return torch.stack(values).sum() if len(values) > 1 else values[0]


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
    if isinstance(chosen, str):
        return torch.tensor(_BY_FREQUENCY[chosen](counts), dtype=torch.float32)
    if len(chosen) != len(counts) or min(chosen) < 0 or max(chosen) == 0:
        raise InputError(
            f"loss.class_weights has {len(chosen)} numbers: give {len(counts)}, one for each "
            "class, none below 0 and not all 0"
        )
    return torch.tensor(chosen, dtype=torch.float32)
