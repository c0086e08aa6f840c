"""Normalization of images to the values that a network was trained on; part of every bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ORDERS = ("rgb", "bgr")


@dataclass(frozen=True)
class Normalization:
    """Normalize each channel: (image / 255 - mean) / std.

    Attributes:
        mean: Mean of red, green, blue and further channels, regardless of `order`, in units of
            0..1.
        std: Standard deviation, likewise.
        order: "rgb" or "bgr", the order of the first three channels of the output. The input is
            always RGB.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str = "rgb"

    def __call__(self, images: Tensor, *, channel_axis: int = 1) -> Tensor:
        """Normalize images.

        Args:
            images: (B, C, H, W), uint8 or float in units of 0..255.
            channel_axis: Axis of the channels: 1, or 3 for (B, H, W, C).

        Returns:
            float32 tensor of the same shape and memory format, its channels in `order`.
        """
        shape = [self.channels if axis == channel_axis else 1 for axis in range(4)]
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=images.device).view(shape) * 255
            for values in (self.mean, self.std)
        )
        scale = 1 / std
        if self.order == "bgr":
            images, mean, scale = (_swap_rgb(each, channel_axis) for each in (images, mean, scale))
        return (images.float() - mean) * scale

    @property
    def channels(self) -> int:
        return len(self.mean)

    def fill(self) -> tuple[float, ...]:
        """Return the padding values, in units of 0..255, that normalize to zero."""
        return tuple(255 * value for value in self.mean)

    def widened(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Normalization:
        """Adapt the normalization to images with other channels.

        Red, green and blue keep their values. Other channels are normalized to the std that RGB
        images have after this normalization: 1 if it divides by the std. Images with fewer than
        three channels have no colors, so all their channels use the given statistics.

        Args:
            mean: Mean of each channel of the images, in units of 0..255.
            std: Standard deviation of each channel.
        """
        kept = 3 if len(mean) >= 3 else 0
        relative_std = sum(self.std[:3]) / sum(IMAGENET.std)
        nonzero = (255 if value == 0 else value for value in std[kept:])
        return Normalization(
            self.mean[:kept] + tuple(value / 255 for value in mean[kept:]),
            self.std[:kept] + tuple(relative_std * value / 255 for value in nonzero),
            self.order if kept else "rgb",
        )

    def to_json(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std), "order": self.order}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Normalization:
        """Invert `to_json`. A missing `order`, as in early bundles, means RGB.

        Raises:
            KeyError: If a key is missing.
            TypeError: If a value has the wrong type.
            ValueError: If a value is not allowed.
        """
        mean, std = (tuple(float(x) for x in data[key]) for key in ("mean", "std"))
        if not mean or len(mean) != len(std) or min(std) <= 0:
            raise ValueError("mean and std need one number per channel, and std must be above 0")
        order = data.get("order", "rgb")
        if order not in ORDERS:
            raise ValueError(f"order {order!r}: must be one of {', '.join(ORDERS)}")
        if order == "bgr" and len(mean) < 3:
            raise ValueError("order bgr needs at least three channels")
        return cls(mean, std, order)


def _swap_rgb(images: Tensor, axis: int) -> Tensor:
    """Reverse the first three channels along `axis`."""
    channels = images.shape[axis]
    colors = images.narrow(axis, 0, 3).flip(axis)
    if channels == 3:
        return colors
    return torch.cat([colors, images.narrow(axis, 3, channels - 3)], dim=axis)


def caffe_normalization(blue: float, green: float, red: float) -> Normalization:
    """Return Caffe's normalization: BGR minus a mean in units of 0..255, without a division."""
    return Normalization((red / 255, green / 255, blue / 255), (1 / 255, 1 / 255, 1 / 255), "bgr")


# torchvision's ImageNet weights.
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# torchvision's GoogLeNet: its published weights turn on `transform_input`, which undoes IMAGENET,
# then subtracts 0.5 and divides by 0.5.
GOOGLENET = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Networks trained with TensorFlow: -1 to 1 (DeepLab's feature_extractor.py).
TENSORFLOW = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# EfficientNet-Lite: (value - 127) / 128 (efficientnet_lite_builder.py).
EFFICIENTNET_LITE = Normalization((127 / 255,) * 3, (128 / 255,) * 3)
# FCN's reference code on PASCAL VOC (voc-fcn*/net.py): the mean of ImageNet.
CAFFE = caffe_normalization(104.00699, 116.66877, 122.67892)
