"""Names of splits within folder names: `train`, `Validation`, `img_train`, `trainannot`, `Tr`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

ALIASES: Mapping[str, tuple[str, ...]] = {
    "train": ("train_val", "train-val", "trainval", "training", "train"),
    "val": ("validation", "valid", "val"),
    "test": ("testing", "test"),
}
"""Names of each split, longer ones first. A `trainval` folder is divided like any other `train`."""

_SHORT = {"Tr": "train", "Va": "val", "Ts": "test", "Te": "test"}
_SHORT |= {name.upper(): split for name, split in _SHORT.items()}
_SPLIT_OF = {alias: split for split, aliases in ALIASES.items() for alias in aliases}
ANY_SPLIT = "|".join((*(f"(?i:{alias})" for alias in _SPLIT_OF), *_SHORT))
"""A regular expression that matches the name of any split."""

# The name of a split must be a whole word: digits, and words that say what a folder holds, may
# touch it, but no other letters. Short names are only read in `imagesTr` and in `NAME-TR`.
_ROLES = r"(?i:annot|ann|images?|imgs?|masks?|labels?|gt|set|data)"
_WORD = re.compile(
    rf"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))(?P<split>(?i:{'|'.join(_SPLIT_OF)}))"
    rf"(?=$|[^a-z]|{_ROLES}(?:$|[^a-z]))"
    r"|(?:(?<=[a-z])(?P<camel>Tr|Va|Ts|Te)$|(?<=[A-Za-z0-9][-_])(?P<upper>TR|VA|TS|TE)(?![A-Za-z]))"
)


def split_of(name: str) -> str | None:
    """Return the split that a name stands for; None if it is not the name of a split."""
    return _SHORT.get(name) or _SPLIT_OF.get(name.casefold())


@cache
def split_in(component: str) -> tuple[str, str | None]:
    """Find the split in a folder name.

    Returns:
        The name with `{split}` in place of the name of the split, and the split. The name itself
        and None if it holds none, or several.
    """
    found = list(_WORD.finditer(component))
    if len(found) != 1:
        return component, None
    match = found[0]
    return (
        f"{component[: match.start()]}{{split}}{component[match.end() :]}",
        split_of(match["split"] or match["camel"] or match["upper"]),
    )
