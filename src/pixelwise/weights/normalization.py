"""How images become the numbers that a network was trained on; part of every bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ORDERS = ("rgb", "bgr")


@dataclass(frozen=True)
class Normalization:
    """(image / 255 - mean) / std, by channel.

    mean, std: of red, green, blue and what follows, whatever `order` is, in units of 0..1.
    order: "rgb" or "bgr", in which the network wants the first three. Images go in as RGB always.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str = "rgb"

    def __call__(self, images: Tensor, *, channel_axis: int = 1) -> Tensor:
        """(B, C, H, W), uint8 or float in units of 0..255, to float32 of the same memory layout,
        its channels in `order`. channel_axis: 3 where they come last."""
        shape = [self.channels if axis == channel_axis else 1 for axis in range(4)]
        mean = torch.tensor(self.mean, device=images.device).view(shape) * 255
        scale = 1 / (torch.tensor(self.std, device=images.device).view(shape) * 255)
        if self.order == "bgr":
            images, mean, scale = (_turned(each, channel_axis) for each in (images, mean, scale))
        return (images.float() - mean) * scale

    @property
    def channels(self) -> int:
        return len(self.mean)

    def fill(self) -> tuple[float, ...]:
        """The image's values, in units of 0..255, that normalize to zero: for padding."""
        return tuple(255 * part for part in self.mean)

    def widened(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Normalization:
        """For images of other channels, with these measured on them, in units of 0..255.

        Red, green and blue keep theirs, others come out with a std as RGB has it here: 1
        where it is divided by its own. Images of fewer channels have no colors to keep.
        """
        kept = 3 if len(mean) >= 3 else 0
        usual = sum(self.std[:3]) / sum(IMAGENET.std)
        measured = (255 if value == 0 else value for value in std[kept:])
        return Normalization(
            self.mean[:kept] + tuple(value / 255 for value in mean[kept:]),
            self.std[:kept] + tuple(usual * value / 255 for value in measured),
            self.order if kept else "rgb",
        )

    def to_json(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std), "order": self.order}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Normalization:
        """The inverse of `to_json`; without `order`, as earlier bundles are, it is RGB.

        Raises KeyError, TypeError or ValueError where it is not such a dict.
        """
        mean, std = (tuple(float(x) for x in data[key]) for key in ("mean", "std"))
        if not mean or len(mean) != len(std) or min(std) <= 0:
            raise ValueError("mean and std need a number for each channel, std above zero")
        order = data.get("order", "rgb")
        if order not in ORDERS:
            raise ValueError(f"order {order!r}: allowed are {', '.join(ORDERS)}")
        if order == "bgr" and len(mean) < 3:
            raise ValueError("order bgr needs three channels")
        return cls(mean, std, order)


def _turned(images: Tensor, axis: int) -> Tensor:
    """The first three channels, along `axis`, in the other order."""
    channels = images.shape[axis]
    colors = images.narrow(axis, 0, 3).flip(axis)
    if channels == 3:
        return colors
    return torch.cat([colors, images.narrow(axis, 3, channels - 3)], dim=axis)


def caffe_normalization(blue: float, green: float, red: float) -> Normalization:
    """BGR less a mean in units of 0..255, not divided: what networks of Caffe were trained on."""
    return Normalization((red / 255, green / 255, blue / 255), (1 / 255, 1 / 255, 1 / 255), "bgr")


# torchvision's weights of ImageNet
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# torchvision's GoogLeNet: with published weights its `transform_input` is on, which undoes IMAGENET
# and then takes 0.5 and divides by 0.5
GOOGLENET = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# What TensorFlow's networks were trained on: -1 to 1 (DeepLab's feature_extractor.py)
TENSORFLOW = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# FCN's reference code on PASCAL VOC (voc-fcn*/net.py); the mean of ImageNet
CAFFE = caffe_normalization(104.00699, 116.66877, 122.67892)
