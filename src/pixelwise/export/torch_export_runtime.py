"""A captured program run by PyTorch, to be checked; for use it is another program's."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels


class ProgramRuntime:
    """The module of a captured program."""

    def __init__(self, module: torch.nn.Module, name: str) -> None:
        self.name = name
        self._module = module

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(H, W, N) in units of 0..255 to (C, H, W) float32."""
        found: NDArray[np.float32] = self._run(image)[1]
        return found

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W, N) in units of 0..255 to (H, W) class indices."""
        found: NDArray[np.uint8] = self._run(image)[0]
        return found

    @torch.no_grad()
    def _run(self, image: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        labels, logits = self._module(torch.from_numpy(np.ascontiguousarray(image))[None])
        return labels[0].numpy(), logits[0].numpy()
