"""The class of every network: a backbone, a head, and resizing to the size of the image."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import inf

import torch
from torch import Tensor, nn

from pixelwise.backbones import Backbone
from pixelwise.errors import InputError
from pixelwise.layers import resize

Size = tuple[int, int]  # height, width
MAX_DENOMINATOR = 1000  # of the fractions that represent scales


class Segmenter(nn.Module):
    """Segmentation network: normalized images (B, C, H, W) to logits (B, num_classes, H, W).

    Works for any H, W >= 1. The logits of the head are resized to the image, unless the head has a
    method `upsample(logits, size=(height, width))`.

    Args:
        backbone: The feature extractor.
        head: Module that maps the backbone's dict of features to logits.
        auxiliary: Second head on the same features, used only for its loss: see `training_logits`.
        scales: Image scales at which the network is also run; at each position the largest logit
            over all scales wins (DeepLab v2, arXiv:1606.00915, section 4.1.2, with 0.5 and 0.75).
        align_corners: Align corners in every resize, as Caffe and TensorFlow do; needed by weights
            that were trained so.
        input_scale: Images are resized by this factor first; the logits keep the size of the image.

    Raises:
        InputError: If a scale is not above 0.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        *,
        auxiliary: nn.Module | None = None,
        scales: Sequence[float] = (),
        align_corners: bool = False,
        input_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not all(0 < scale < inf for scale in scales):
            raise InputError(f"scales {list(scales)}: all must be numbers above 0")
        if not 0.25 <= input_scale <= 4:
            raise InputError(f"input_scale {input_scale:g}: must be from 0.25 to 4")
        self.backbone: nn.Module = backbone  # inference may replace it by an equivalent module
        self.head = head
        self.auxiliary = auxiliary
        self.scales = tuple(scales)
        self.align_corners = align_corners
        self.input_scale = input_scale

    def forward(self, images: Tensor) -> Tensor:
        size = _size(images)
        (input_size,) = self._scaled_sizes(size, (self.input_scale,))
        return self._upsample(self.coarse_logits(images), input_size=input_size, size=size)

    def coarse_logits(self, images: Tensor) -> Tensor:
        """Compute the logits at the resolution of the head, before upsampling."""
        images = self._scale_input(images)
        logits: Tensor = self.head(self.backbone(images))
        return self._largest([logits, *self._logits_at_scales(images)])

    def training_logits(self, images: Tensor, *, upsample: bool = True) -> tuple[Tensor, ...]:
        """Compute all logits that have a loss in training.

        Args:
            images: Normalized images (B, C, H, W).
            upsample: Resize all logits to the image; False keeps the resolution of each head.

        Returns:
            The logits as in `forward`; if the network has several scales, the logits of each scale,
            the original size first; and the auxiliary head's logits if there is one.
        """
        size = _size(images)
        images = self._scale_input(images)
        input_size = _size(images)
        features = self.backbone(images)
        logits, input_sizes = [self.head(features)], [input_size]
        if self.scales:
            logits += self._logits_at_scales(images)
            logits = [self._largest(logits), *logits]
            input_sizes = [input_size, input_size, *self._scaled_sizes(input_size, self.scales)]
        if upsample:
            logits = [
                self._upsample(each, input_size=input_size, size=size)
                for each, input_size in zip(logits, input_sizes, strict=True)
            ]
        if self.auxiliary is not None:
            extra = self.auxiliary(features)
            logits.append(self._resize(extra, size) if upsample else extra)
        return tuple(logits)

    def _scale_input(self, images: Tensor) -> Tensor:
        (size,) = self._scaled_sizes(_size(images), (self.input_scale,))
        return self._resize(images, size)

    def _scaled_sizes(self, size: Size, scales: Sequence[float]) -> list[Size]:
        """The image's size at each scale; with aligned corners, sizes 8k + 1 stay of that form."""
        corner = int(self.align_corners)
        fractions = [Fraction(scale).limit_denominator(MAX_DENOMINATOR) for scale in scales]
        return [
            (_scaled_side(size[0], scale, corner), _scaled_side(size[1], scale, corner))
            for scale in fractions
        ]

    def _logits_at_scales(self, images: Tensor) -> list[Tensor]:
        """The head's logits of the image at each of the scales."""
        sizes = self._scaled_sizes(_size(images), self.scales)
        return [self.head(self.backbone(self._resize(images, size))) for size in sizes]

    def _largest(self, logits: list[Tensor]) -> Tensor:
        """The pixelwise maximum, at the size of the first."""
        fused, *others = logits
        for other in others:
            fused = torch.maximum(fused, self._resize(other, _size(fused)))
        return fused

    def _upsample(self, logits: Tensor, *, input_size: Size, size: Size) -> Tensor:
        """Resize logits, computed from the image at `input_size`, to the image's own size."""
        upsample = getattr(self.head, "upsample", None)
        return self._resize(logits if upsample is None else upsample(logits, size=input_size), size)

    def _resize(self, x: Tensor, size: Size) -> Tensor:
        return resize(x, size=size, align_corners=self.align_corners)


def _scaled_side(side: int, scale: Fraction, corner: int) -> int:
    """Scale a side to at least 1.

    Integer arithmetic without comparisons, because `side` may be symbolic during export.
    """
    scaled = (side - corner) * scale.numerator // scale.denominator + corner
    return scaled + 1 // (scaled + 1)  # turns 0 into 1


def _size(x: Tensor) -> Size:
    return x.shape[2], x.shape[3]
