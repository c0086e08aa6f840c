"""The losses by their names in a recipe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from pixelwise.training.losses.boundary_loss import boundary
from pixelwise.training.losses.pixel_losses import cross_entropy, focal, ohem
from pixelwise.training.losses.region_losses import dice, lovasz_softmax

if TYPE_CHECKING:
    from pixelwise.recipes.schema import LossRecipe

LossFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Maps logits (B, C, H, W), labels (B, H, W) and class weights (C,) or None to the loss."""

LOSSES: dict[str, Callable[[LossRecipe], LossFunction]] = {
    "cross_entropy": lambda recipe: partial(
        cross_entropy, reduction=recipe.reduction, label_smoothing=recipe.label_smoothing
    ),
    "focal": lambda recipe: partial(focal, gamma=recipe.focal_gamma, reduction=recipe.reduction),
    "ohem": lambda recipe: partial(
        ohem,
        threshold=recipe.ohem_threshold,
        min_kept=recipe.ohem_kept,
        label_smoothing=recipe.label_smoothing,
    ),
    "dice": lambda recipe: dice,
    "lovasz_softmax": lambda recipe: lovasz_softmax,
    "boundary": lambda recipe: boundary,
}
