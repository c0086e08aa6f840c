"""Parse the loss of a recipe: a name or a weighted sum of names, such as `cross_entropy+0.5*dice`.

`pixelwise.training.losses.registry` implements the losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOSS_NAMES = ("cross_entropy", "focal", "ohem", "dice", "lovasz_softmax", "boundary")
SUPPORTS_SUM = ("cross_entropy", "focal")
"""Losses that support `loss.reduction = "sum"`."""
SUPPORTS_LABEL_SMOOTHING = ("cross_entropy", "ohem")
"""Losses that support `loss.label_smoothing`."""


@dataclass(frozen=True)
class Term:
    """One loss of a weighted sum."""

    name: str
    factor: float


def parse_terms(text: str) -> tuple[Term, ...]:
    """Parse a sum of losses such as `cross_entropy+0.5*dice`.

    Raises:
        ValueError: If the text is not a valid sum of losses.
    """
    terms = []
    for summand in text.split("+"):
        factor, _, name = summand.rpartition("*")
        name = name.strip()
        if name not in LOSS_NAMES:
            raise ValueError(
                f"{name!r} in {text!r} is not a loss: allowed are {', '.join(LOSS_NAMES)}, and "
                "sums of them such as cross_entropy+0.5*dice"
            )
        try:
            number = float(factor) if factor else 1.0
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise ValueError(
                f"{factor!r} in {text!r}: a factor must be a number above 0, as in 0.5*dice"
            )
        terms.append(Term(name, number))
    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        raise ValueError(f"{text!r} names a loss twice: give each loss one factor")
    return tuple(terms)
