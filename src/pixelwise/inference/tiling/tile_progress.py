"""What a pass over an image by tiles leaves behind, so that another can go on from there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sums:
    """Of an image pooling: the sum (channels,) of the map over the first `rows` rows of tiles,
    and of how many positions."""

    rows: int = 0
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    positions: int = 0


class TileProgress(Protocol):
    """How far a pass has come; the next one over the same image, with the same tiles, begins
    there and gives the same numbers.

    rows: rows of tiles whose blocks need not be given again.
    """

    @property
    def rows(self) -> int: ...

    def sums(self, pooling: int) -> Sums:
        """What was kept last of an image pooling, by its number."""

    def keep_sums(self, pooling: int, sums: Sums) -> None:
        """Called after each row of tiles."""


class NoTileProgress:
    """Of a pass that begins at the beginning and leaves nothing."""

    rows = 0

    def sums(self, pooling: int) -> Sums:
        return Sums()

    def keep_sums(self, pooling: int, sums: Sums) -> None:
        pass
