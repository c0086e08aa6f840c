"""The whole way from pixels to labels as one graph, for any size of image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pixelwise.errors import PixelwiseError
from pixelwise.inference.runtimes.torch.simplify import simplify
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import Normalization

EXAMPLE = (97, 131)  # no multiples of anything, so that no size is taken for a rule


class Deployed(nn.Module):
    """(1, H, W, N) in units of 0..255 to labels (1, H, W) uint8 and logits (1, C, H, W) float32."""

    def __init__(self, model: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.model = model
        self.normalization = normalization

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # Channels last until the network: runtimes then spare reordering the numbers.
        normalized = self.normalization(image, channel_axis=3)
        logits = self.model(normalized.permute(0, 3, 1, 2))
        return logits.argmax(dim=1).to(torch.uint8), logits


def capture(bundle: Bundle, *, quantizable: bool = False) -> ExportedProgram:
    """The graph of a bundle's network, its height and width left open.

    quantizable: in the form that int8 is made of.

    Raises PixelwiseError where PyTorch cannot capture it.
    """
    channels = bundle.pixels.channels
    model = simplify(bundle.build(), every_size=True, quantizable=quantizable, in_channels=channels)
    deployed = Deployed(model, bundle.normalization).eval()
    image = torch.zeros(1, *EXAMPLE, channels, dtype=getattr(torch, bundle.pixels.network_dtype))
    shapes = {"image": {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}}
    try:
        with torch.no_grad():
            return torch.export.export(deployed, (image,), dynamic_shapes=shapes)
    except Exception as error:  # of many classes, none of them told
        reason = str(error).strip().splitlines()[0]
        raise PixelwiseError(
            f"{bundle.path}: PyTorch cannot export {bundle.model} ({reason})"
        ) from error
