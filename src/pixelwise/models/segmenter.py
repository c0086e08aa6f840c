"""The only wrapper: a backbone, a head, and logits at the image's own size."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from pixelwise.backbones import Backbone
from pixelwise.layers import resize


class Segmenter(nn.Module):
    """(B, 3, H, W) normalised images to (B, num_classes, H, W) logits, for any H, W >= 1.

    The head's logits are resized to the image, unless the head has a way of its own: a method
    `enlarge(logits, size=(height, width))`.
    """

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = cast(nn.Module, backbone)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits = self.coarse(images)
        size = (images.shape[2], images.shape[3])
        enlarged: Tensor = getattr(self.head, "enlarge", resize)(logits, size=size)
        return enlarged

    def coarse(self, images: Tensor) -> Tensor:
        """The head's own logits, before they are enlarged to the image's size."""
        logits: Tensor = self.head(self.backbone(images))
        return logits
