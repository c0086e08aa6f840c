"""Feature maps in the memory layout of the compiled functions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """Return a map (B, C, H, W) in channels_last order; a copy only if it is not."""
    return x.detach().contiguous(memory_format=torch.channels_last)


def flat_values(x: Tensor) -> NDArray[np.float32]:
    """Return the values of a channels_last map as a one-dimensional array, without a copy."""
    values: NDArray[np.float32] = x.permute(0, 2, 3, 1).numpy().reshape(-1)
    return values
