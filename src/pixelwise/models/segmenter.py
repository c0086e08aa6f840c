"""The only wrapper: a backbone, a head, and logits at the image's own size."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from pixelwise.backbones import Backbone
from pixelwise.layers import resize


class Segmenter(nn.Module):
    """(B, 3, H, W) normalised images to (B, num_classes, H, W) logits, for any H, W >= 1.

    The head's logits are resized to the image, unless the head has a way of its own: a method
    `enlarge(logits, size=(height, width))`. An `auxiliary` head sees the same maps and is there for
    its loss alone: see `with_auxiliary`.
    """

    def __init__(
        self, backbone: Backbone, head: nn.Module, *, auxiliary: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone = cast(nn.Module, backbone)
        self.head = head
        self.auxiliary = auxiliary

    def forward(self, images: Tensor) -> Tensor:
        return self._enlarge(self.coarse(images), images)

    def coarse(self, images: Tensor) -> Tensor:
        """The head's own logits, before they are enlarged to the image's size."""
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, ...]:
        """The logits, and where there is an auxiliary head its logits too, at the image's size."""
        features = self.backbone(images)
        logits = [self._enlarge(self.head(features), images)]
        if self.auxiliary is not None:
            size = (images.shape[2], images.shape[3])
            logits.append(resize(self.auxiliary(features), size=size))
        return tuple(logits)

    def _enlarge(self, logits: Tensor, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        enlarged: Tensor = getattr(self.head, "enlarge", resize)(logits, size=size)
        return enlarged
