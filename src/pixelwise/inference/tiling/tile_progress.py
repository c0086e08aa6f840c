"""The progress of a tiled pass over an image, from which an interrupted pass is resumed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PoolingSums:
    """The sums from which the mean of an image pooling is computed.

    Args:
        rows: The number of rows of tiles that have been summed.
        total: (channels,) sum of the pooled map over these rows.
        positions: The number of positions of the map in these rows.
    """

    rows: int = 0
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    positions: int = 0


class TileProgress:
    """The progress of a pass; resumed over the same image and tiles, it gives the same numbers.

    This class is for a pass that starts at the beginning and is not resumed.
    """

    @property
    def rows(self) -> int:
        """The number of rows of tiles whose blocks are finished."""
        return 0

    def sums(self, pooling: int) -> PoolingSums:
        """Return the latest sums of image pooling number `pooling`."""
        return PoolingSums()

    def save_sums(self, pooling: int, sums: PoolingSums) -> None:
        """Save the sums of an image pooling; called after each row of tiles."""
