"""The notation of a fold, such as 2/5."""

from __future__ import annotations

import re

MAX_FOLDS = 999


def parse_fold(text: str) -> tuple[int, int]:
    """Parse `2/5` to (2, 5): the second of five folds.

    Raises:
        ValueError: For another form, or a number that is not allowed.
    """
    match = re.fullmatch(r"([0-9]{1,3})/([0-9]{1,3})", text)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not (count >= 2 and 1 <= number <= count):
        raise ValueError(
            f"fold {text!r}: must be NUMBER/FOLDS, such as 1/5, with 2 to {MAX_FOLDS} folds"
        )
    return number, count
