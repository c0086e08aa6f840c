"""The contract of a runtime."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Runtime(Protocol):
    """A network that is ready to run, normalisation and enlarging included.

    name: as `--runtime` has it. Pictures are uint8 RGB (H, W, 3) of any size.
    """

    name: str

    def logits(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(C, H, W) float32 scores before the softmax."""

    def classify(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) uint8 indices of the largest logits; where runtimes can, without the logits."""
