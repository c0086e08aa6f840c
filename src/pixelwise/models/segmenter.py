"""The only wrapper: a backbone, a head, and logits at the image's own size."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import inf
from typing import cast

import torch
from torch import Tensor, nn

from pixelwise.backbones import Backbone
from pixelwise.errors import InputError
from pixelwise.layers import resize

Size = tuple[int, int]  # height, width
FINEST = 1000  # scales are fractions with denominators up to this


class Segmenter(nn.Module):
    """(B, 3, H, W) normalized images to (B, num_classes, H, W) logits, for any H, W >= 1.

    The head's logits are resized to the image, unless the head has a way of its own: a method
    `upsample(logits, size=(height, width))`. An `auxiliary` head sees the same maps and is there for
    its loss alone: see `with_auxiliary`.

    scales: the image is seen at each of these sizes besides its own, and the largest logit at each
    position wins (DeepLab v2, arXiv:1606.00915, section 4.1.2): 0.5 and 0.75 there.
    align_corners: in every resize, as Caffe and TensorFlow do, for weights that were trained so.
    Raises InputError for a scale that is not above 0.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        *,
        auxiliary: nn.Module | None = None,
        scales: Sequence[float] = (),
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if not all(0 < scale < inf for scale in scales):
            raise InputError(f"scales {list(scales)}: all are numbers above 0")
        self.backbone = cast(nn.Module, backbone)
        self.head = head
        self.auxiliary = auxiliary
        self.scales = tuple(scales)
        self.align_corners = align_corners

    def forward(self, images: Tensor) -> Tensor:
        size = _size(images)
        return self._upsample(self.coarse(images), seen=size, size=size)

    def coarse(self, images: Tensor) -> Tensor:
        """The head's own logits, before they are upsampled to the image's size."""
        logits: Tensor = self.head(self.backbone(images))
        return self._largest([logits, *self._rescaled(images)])

    def with_auxiliary(self, images: Tensor, *, upsample: bool = True) -> tuple[Tensor, ...]:
        """The logits, and what else has a loss in training: the logits at each scale, that of the
        image first, where there are several, and those of an auxiliary head where there is one.

        All at the image's size, or, without `upsample`, as large as they come from their head.
        """
        size = _size(images)
        features = self.backbone(images)
        logits, seen = [self.head(features)], [size]
        if self.scales:
            logits += self._rescaled(images)
            logits = [self._largest(logits), *logits]
            seen = [size, size, *self._scaled(size)]
        if upsample:
            logits = [
                self._upsample(each, seen=one, size=size)
                for each, one in zip(logits, seen, strict=True)
            ]
        if self.auxiliary is not None:
            extra = self.auxiliary(features)
            logits.append(self._resize(extra, size) if upsample else extra)
        return tuple(logits)

    def _scaled(self, size: Size) -> list[Size]:
        """The image's size at each of the scales; with corners aligned, those of 8k + 1 stay so."""
        corner = int(self.align_corners)
        fractions = [Fraction(scale).limit_denominator(FINEST) for scale in self.scales]
        return [
            (_scaled_side(size[0], scale, corner), _scaled_side(size[1], scale, corner))
            for scale in fractions
        ]

    def _rescaled(self, images: Tensor) -> list[Tensor]:
        """The head's logits of the image at each of the scales."""
        sizes = self._scaled(_size(images))
        return [self.head(self.backbone(self._resize(images, size))) for size in sizes]

    def _largest(self, logits: list[Tensor]) -> Tensor:
        """The pixelwise maximum, at the size of the first."""
        fused, *others = logits
        for other in others:
            fused = torch.maximum(fused, self._resize(other, _size(fused)))
        return fused

    def _upsample(self, logits: Tensor, *, seen: Size, size: Size) -> Tensor:
        """Logits of an image that was seen at one size, at the image's own size."""
        upsample = getattr(self.head, "upsample", None)
        return self._resize(logits if upsample is None else upsample(logits, size=seen), size)

    def _resize(self, x: Tensor, size: Size) -> Tensor:
        return resize(x, size=size, align_corners=self.align_corners)


def _scaled_side(side: int, scale: Fraction, corner: int) -> int:
    """At least 1. In whole numbers and without a comparison, for `side` may stand for any size when
    the network is exported."""
    scaled = (side - corner) * scale.numerator // scale.denominator + corner
    return scaled + 1 // (scaled + 1)  # 1 where it is 0


def _size(x: Tensor) -> Size:
    return x.shape[2], x.shape[3]
