"""The losses by the names that a recipe has for them, and sums of them."""

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

PlainLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(B, C, H, W) logits, (B, H, W) labels, (C,) weights of classes or None, to a number."""

LOSSES: dict[str, Callable[[LossRecipe], PlainLoss]] = {
    "cross_entropy": lambda recipe: partial(
        cross_entropy, reduction=recipe.reduction, label_smoothing=recipe.label_smoothing
    ),
    "focal": lambda recipe: partial(focal, gamma=recipe.focal_gamma, reduction=recipe.reduction),
    "ohem": lambda recipe: partial(
        ohem,
        threshold=recipe.ohem_threshold,
        kept=recipe.ohem_kept,
        label_smoothing=recipe.label_smoothing,
    ),
    "dice": lambda recipe: dice,
    "lovasz_softmax": lambda recipe: lovasz_softmax,
    "boundary": lambda recipe: boundary,
}
