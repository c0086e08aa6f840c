"""The names of the losses and sums of them, as a recipe writes them: `cross_entropy+0.5*dice`.

`pixelwise.training.losses.registry` implements them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOSS_NAMES = ("cross_entropy", "focal", "ohem", "dice", "lovasz_softmax", "boundary")
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
        if name not in LOSS_NAMES:
            raise ValueError(
                f"{name!r} in {text!r} is no loss: allowed are {', '.join(LOSS_NAMES)}, and sums of "
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
