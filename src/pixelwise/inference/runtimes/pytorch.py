"""PyTorch, eager: the reference that every other runtime is held against."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pixelwise.checkpoints import Normalisation
from pixelwise.data.pixels import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.simplify import simplify


class TorchRuntime:
    """A network in channels_last order and simplified, which changes logits by rounding only.

    device: any PyTorch device. Raises InputError where it cannot be used.
    """

    name = "torch"

    def __init__(
        self,
        model: torch.nn.Module,
        normalisation: Normalisation,
        *,
        device: str | torch.device | None = "cpu",
    ) -> None:
        self.device = find_device(device)
        self.normalisation = normalisation
        simplified = simplify(model, in_channels=normalisation.channels)
        self.model = simplified.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(H, W, C) in units of 0..255 to (C, H, W) float32."""
        logits: NDArray[np.float32] = self._run(image).cpu().numpy()
        return logits

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W, C) in units of 0..255 to (H, W) class indices."""
        index: NDArray[np.uint8] = self._run(image).argmax(dim=0).to(torch.uint8).cpu().numpy()
        return index

    @torch.inference_mode()
    def _run(self, image: Pixels) -> torch.Tensor:
        # A view of H x W x C as C x H x W is channels_last already: nothing is copied or reordered.
        batch = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1)[None]
        out: torch.Tensor = self.model(self.normalisation(batch))[0].float()
        return out


def find_device(name: str | torch.device | None) -> torch.device:
    """The device of that name, a GPU where there is one for None. Raises InputError if unusable."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {str(name)!r}: cannot be used here ({reason}): try cpu"
        ) from error
    return device
