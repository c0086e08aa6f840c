"""The only wrapper: a backbone, a head, and logits at the image's own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pixelwise.backbones import Backbone
from pixelwise.errors import InputError
from pixelwise.layers import resize


class Segmenter(nn.Module):
    """(B, 3, H, W) normalised images to (B, num_classes, H, W) logits, for any H, W >= 1.

    The head's logits are resized to the image, unless the head has a way of its own: a method
    `enlarge(logits, size=(height, width))`. An `auxiliary` head sees the same maps and is there for
    its loss alone: see `with_auxiliary`.

    scales: the image is seen at each of these sizes besides its own, and the largest logit at each
    position wins (DeepLab v2, arXiv:1606.00915, section 4.1.2): 0.5 and 0.75 there.
    Raises InputError for a scale that is not above 0.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        *,
        auxiliary: nn.Module | None = None,
        scales: Sequence[float] = (),
    ) -> None:
        super().__init__()
        if any(scale <= 0 for scale in scales):
            raise InputError(f"scales {list(scales)}: all are above 0")
        self.backbone = cast(nn.Module, backbone)
        self.head = head
        self.auxiliary = auxiliary
        self.scales = tuple(scales)

    def forward(self, images: Tensor) -> Tensor:
        return self._enlarge(self.coarse(images), images)

    def coarse(self, images: Tensor) -> Tensor:
        """The head's own logits, before they are enlarged to the image's size."""
        logits: Tensor = self.head(self.backbone(images))
        return _largest([logits, *self._rescaled(images)])

    def with_auxiliary(self, images: Tensor, *, enlarge: bool = True) -> tuple[Tensor, ...]:
        """The logits, and what else has a loss in training: the logits at each scale, that of the
        image first, where there are several, and those of an auxiliary head where there is one.

        All at the image's size, or, without `enlarge`, as large as they come from their head.
        """
        features = self.backbone(images)
        single = [self.head(features), *self._rescaled(images)]
        logits = [_largest(single), *single] if self.scales else single
        if enlarge:
            logits = [self._enlarge(each, images) for each in logits]
        if self.auxiliary is not None:
            extra = self.auxiliary(features)
            size = (images.shape[2], images.shape[3])
            logits.append(resize(extra, size=size) if enlarge else extra)
        return tuple(logits)

    def _rescaled(self, images: Tensor) -> list[Tensor]:
        """The head's logits of the image at each of the scales."""
        height, width = images.shape[2:]
        sizes = [(max(1, int(height * s)), max(1, int(width * s))) for s in self.scales]
        return [self.head(self.backbone(resize(images, size=size))) for size in sizes]

    def _enlarge(self, logits: Tensor, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        enlarged: Tensor = getattr(self.head, "enlarge", resize)(logits, size=size)
        return enlarged


def _largest(logits: list[Tensor]) -> Tensor:
    """The pixelwise maximum, at the size of the first."""
    fused, *others = logits
    for other in others:
        fused = torch.maximum(fused, resize(other, size=(fused.shape[2], fused.shape[3])))
    return fused
