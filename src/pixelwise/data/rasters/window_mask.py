"""The mask of a window: labels on the raster's grid, without pixels that lack data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.rasters.raster_file import Raster, Window
from pixelwise.data.source import NO_DATA


class Labels(Protocol):
    """Labels on the grid of one raster."""

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return the values (H, W), and which pixels are labeled; None for all."""

    def covers(self, window: Window) -> bool:
        """Whether a window may have labeled pixels."""


@dataclass(frozen=True, eq=False)
class WindowMask:
    """The mask of a window; implements `MaskSource`.

    Attributes:
        path: A path that names the labels and the window; it does not exist.
        labels: The labels.
        raster: The image.
        window: The window.
    """

    path: Path
    labels: Labels
    raster: Raster
    window: Window

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        values, labeled = self.labels.read(self.window)
        for known in (labeled, self.raster.valid(self.window)):
            if known is not None and not known.all():
                values = np.where(known, values, np.uint16(NO_DATA))
        return values.astype(np.uint8) if values.max(initial=0) <= 255 else values
