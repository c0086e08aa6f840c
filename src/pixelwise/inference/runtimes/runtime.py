"""The contract of a runtime."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixels import Pixels


class Runtime(Protocol):
    """A network that is ready to run, normalisation and enlarging included.

    name: as `--runtime` has it. Pictures are (H, W, C) of any size in units of 0..255,
    uint8 or float32: see `pixelwise.data.pixels`.
    """

    name: str

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(C, H, W) float32 scores before the softmax."""

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W) uint8 indices of the largest logits; where runtimes can, without the logits."""
