"""Borders between the areas of a label map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def at_border(labels: NDArray[Any], *, ignore: int | None = None) -> NDArray[np.bool_]:
    """Mark the pixels (H, W) with another value above, below, left or right.

    Args:
        labels: (H, W) values.
        ignore: A value that has no border with others.
    """
    border = np.zeros(labels.shape, dtype=bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = labels[one] != labels[other]
        if ignore is not None:
            differs &= (labels[one] != ignore) & (labels[other] != ignore)
        border[one] |= differs
        border[other] |= differs
    return border
