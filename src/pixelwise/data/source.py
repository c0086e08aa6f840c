"""What a layout finds in a folder: pairs of files by split, before any of them is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.data.classes import Classes

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One photograph and its mask; `name` is unique in the data set, the same on every system."""

    name: str
    image: Path
    mask: Path


@dataclass
class Source:
    """A data set as found on disk.

    splits: train, val, test to their samples; `all` alone where the folder states no split.
    classes: from classes.toml or a layout that knows them; None where the masks must tell.
    rgb_allowed: whether the colours of `classes` are stated, so that RGB masks can be read.
    notes: what was found and assumed, in sentences for the person.
    """

    root: Path
    layout: str
    splits: dict[str, list[Sample]]
    classes: Classes | None = None
    rgb_allowed: bool = False
    notes: list[str] = field(default_factory=list)
