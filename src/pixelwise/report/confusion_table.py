"""The confusion matrix as a table of the report: which classes are confused with which."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import Classes
from pixelwise.pages import css_color

MAX_CLASSES = 40
"""Larger matrices are unreadable, so only their largest confusions are listed."""
LISTED = 8
"""Number of confusions in the list."""


def confusion_table(counts: NDArray[np.int64], classes: Classes) -> dict[str, Any]:
    """Prepare the confusion matrix for the template.

    Args:
        counts: (C, C) pixels by true class (rows) and predicted class (columns).
        classes: The class table.

    Returns:
        `names`: names and colors of the classes. `rows`: for each true class that occurs, the
        percentages predicted as each class; empty if there are more than MAX_CLASSES. `largest`:
        the confusions that cost the most pixels.
    """
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    names, colors = classes.names, [css_color(color) for color in classes.colors]
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
    largest = [
        {
            "truth": names[row],
            "predicted": names[column],
            "colors": (colors[row], colors[column]),
            "of_class": float(shares[row, column]),
            "of_errors": float(wrong[row, column] / wrong.sum()),
        }
        for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[row, column]
    ]
    rows = []
    if len(names) <= MAX_CLASSES:
        for i in np.flatnonzero(totals):
            cells = [_cell(share, correct=i == j) for j, share in enumerate(shares[i].tolist())]
            rows.append({"name": names[i], "color": colors[i], "cells": cells})
    return {"names": list(zip(names, colors, strict=True)), "rows": rows, "largest": largest}


def _cell(share: float, *, correct: bool) -> dict[str, Any]:
    number = round(100 * share)
    return {
        "text": str(number) if number else ("<1" if share else ""),
        "strength": round(100 * share**0.6),  # keeps small fractions visible
        "correct": correct,
    }
