"""A map's memory, as the compiled functions take it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) with the channels of a position side by side: itself where they are."""
    return x.detach().contiguous(memory_format=torch.channels_last)


def memory(x: Tensor) -> NDArray[np.float32]:
    """The values of such a map, one after the other; not a copy."""
    values: NDArray[np.float32] = x.permute(0, 2, 3, 1).numpy().reshape(-1)
    return values
