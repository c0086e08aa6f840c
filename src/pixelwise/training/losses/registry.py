"""The losses by the names that a recipe has for them, and sums of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from pixelwise.training.losses.boundary import boundary
from pixelwise.training.losses.per_pixel import cross_entropy, focal, ohem
from pixelwise.training.losses.regions import dice, lovasz_softmax

if TYPE_CHECKING:
    from pixelwise.training.recipe import LossRecipe

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
SUMMED = ("cross_entropy", "focal")
"""Those that `loss.reduction = "sum"` is defined for."""
SMOOTHED = ("cross_entropy", "ohem")
"""Those that `loss.label_smoothing` is defined for."""


@dataclass(frozen=True)
class Term:
    """A loss in a sum."""

    name: str
    factor: float


def parse_terms(text: str) -> tuple[Term, ...]:
    """`cross_entropy+0.5*dice` to its terms. Raises ValueError for what is no such sum."""
    terms = []
    for part in text.split("+"):
        factor, _, name = part.rpartition("*")
        name = name.strip()
        if name not in LOSSES:
            raise ValueError(
                f"{name!r} in {text!r} is no loss: allowed are {', '.join(LOSSES)}, and sums of "
                "them, as cross_entropy+0.5*dice"
            )
        try:
            number = float(factor) if factor else 1.0
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise ValueError(f"{factor!r} in {text!r}: a factor is a number above 0, as 0.5*dice")
        terms.append(Term(name, number))
    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        raise ValueError(f"{text!r} names a loss twice: give it one factor")
    return tuple(terms)
