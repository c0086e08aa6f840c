"""How RGB becomes the numbers that a network was trained on; part of every bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ORDERS = ("rgb", "bgr")


@dataclass(frozen=True)
class Normalisation:
    """(image / 255 - mean) / std, by channel.

    mean, std: of red, green and blue, whatever `order` is, in units of 0..1.
    order: "rgb" or "bgr", in which the network wants the channels. Images go in as RGB always.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    order: str = "rgb"

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB, uint8 or float in 0..255, to float32 of the same memory layout, its
        channels in `order`."""
        shape = (1, 3, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(shape) * 255
        scale = 1 / (torch.tensor(self.std, device=images.device).view(shape) * 255)
        if self.order == "bgr":
            images, mean, scale = images.flip(1), mean.flip(1), scale.flip(1)
        return (images.float() - mean) * scale

    def fill(self) -> tuple[int, int, int]:
        """The RGB colour (0..255) that normalises to about zero: for padding."""
        red, green, blue = (round(255 * part) for part in self.mean)
        return red, green, blue

    def to_json(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std), "order": self.order}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Normalisation:
        """The inverse of `to_json`; without `order`, as earlier bundles are, it is RGB.

        Raises KeyError, TypeError or ValueError where it is not such a dict.
        """
        mean, std = (tuple(float(x) for x in data[key]) for key in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("mean and std need three numbers each, std above zero")
        order = data.get("order", "rgb")
        if order not in ORDERS:
            raise ValueError(f"order {order!r}: allowed are {', '.join(ORDERS)}")
        return cls((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), order)


def caffe_normalisation(blue: float, green: float, red: float) -> Normalisation:
    """BGR less a mean in units of 0..255, not divided: what networks of Caffe were trained on."""
    return Normalisation((red / 255, green / 255, blue / 255), (1 / 255, 1 / 255, 1 / 255), "bgr")


# torchvision's weights of ImageNet
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# torchvision's GoogLeNet: with published weights its `transform_input` is on, which undoes IMAGENET
# and then takes 0.5 and divides by 0.5
GOOGLENET = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# What TensorFlow's networks were trained on: -1 to 1 (DeepLab's feature_extractor.py)
TENSORFLOW = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# FCN's reference code on PASCAL VOC (voc-fcn*/net.py); the mean of ImageNet
CAFFE = caffe_normalisation(104.00699, 116.66877, 122.67892)
