"""The loss configured in a recipe: terms, class weights, and the resolution it is computed at."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.data.dataset_statistics import median_frequency, root_median_frequency
from pixelwise.errors import InputError
from pixelwise.recipes.loss_terms import parse_terms
from pixelwise.recipes.schema import ClassWeights, ResolvedLossRecipe
from pixelwise.training.losses.boundary_loss import require_scipy
from pixelwise.training.losses.registry import LOSSES

_BY_FREQUENCY = {
    "median_frequency": median_frequency,
    "root_median_frequency": root_median_frequency,
}


class SegmentationLoss:
    """Compute the training loss from logits (B, C, h, w) and labels (B, H, W).

    Args:
        recipe: The loss section of the recipe.
        counts: Number of training pixels of each class (C,), for class weights by frequency.
        device: Device of the logits.

    Attributes:
        upsample: Whether the logits must have the size of the image.

    Raises:
        InputError: If the class weights do not fit, or a package that a loss needs is missing.
    """

    def __init__(
        self, recipe: ResolvedLossRecipe, counts: NDArray[np.int64], *, device: torch.device
    ) -> None:
        weights = make_class_weights(recipe.class_weights, counts)
        self.weights = None if weights is None else weights.to(device)
        self.upsample = recipe.resolution == "image"
        terms = parse_terms(recipe.name)
        self.terms = [(term.factor, LOSSES[term.name](recipe)) for term in terms]
        if any(term.name == "boundary" for term in terms):
            require_scipy()

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not self.upsample:
            labels = subsample(labels, size=(logits.shape[2], logits.shape[3]))
        logits = logits.float()
        values = [factor * loss(logits, labels, self.weights) for factor, loss in self.terms]
        return torch.stack(values).sum() if len(values) > 1 else values[0]


def subsample(labels: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Subsample labels (B, H, W) to (B, *size) at evenly spaced pixels from the first to the last.

    321 to 41 takes every eighth pixel, as the authors' DeepLab does.
    """
    rows, columns = (
        torch.linspace(0, full - 1, small, device=labels.device).round().long()
        for full, small in zip(labels.shape[1:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]


def make_class_weights(chosen: ClassWeights, counts: NDArray[np.int64]) -> Tensor | None:
    """Return the class weights (C,) that a recipe sets, or None for no weights.

    Raises:
        InputError: If the weights do not fit the classes.
    """
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
