"""Capture the computation from pixels to labels as one graph, for images of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pixelwise.errors import PixelwiseError
from pixelwise.inference.runtimes.torch.simplify import simplify
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import Normalization

EXAMPLE_SIZE = (97, 131)  # prime numbers, so that the graph does not depend on divisibility


class DeployedModel(nn.Module):
    """Predict an image (1, H, W, N) with values in 0..255.

    Returns the labels (1, H, W) uint8 and the logits (1, C, H, W) float32.

    Args:
        model: The network.
        normalization: Normalization of its input.
    """

    def __init__(self, model: nn.Module, normalization: Normalization) -> None:
        super().__init__()
        self.model = model
        self.normalization = normalization

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # Channels stay last until the network, which saves runtimes a reordering.
        normalized = self.normalization(image, channel_axis=3)
        logits = self.model(normalized.permute(0, 3, 1, 2))
        return logits.argmax(dim=1).to(torch.uint8), logits


def capture(
    bundle: Bundle, *, size: tuple[int, int] | None = None, quantizable: bool = False
) -> ExportedProgram:
    """Capture a bundle's network with dynamic height and width.

    Args:
        bundle: The bundle.
        size: Height and width of all images, in place of dynamic ones.
        quantizable: Capture the form that int8 quantization starts from.

    Raises:
        PixelwiseError: If PyTorch cannot capture the network.
    """
    channels = bundle.pixels.channels
    model = simplify(bundle.build(), every_size=True, quantizable=quantizable, in_channels=channels)
    deployed = DeployedModel(model, bundle.normalization).eval()
    image = torch.zeros(
        1, *(size or EXAMPLE_SIZE), channels, dtype=getattr(torch, bundle.pixels.network_dtype)
    )
    shapes = None if size else {"image": {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}}
    try:
        with torch.no_grad():
            return torch.export.export(deployed, (image,), dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises many classes and documents none
        reason = str(error).strip().splitlines()[0]
        raise PixelwiseError(
            f"{bundle.path}: PyTorch cannot export {bundle.model} ({reason})"
        ) from error
