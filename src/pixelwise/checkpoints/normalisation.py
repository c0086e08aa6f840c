"""How RGB becomes the numbers that a network was trained on; part of every bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """(image / 255 - mean) / std, by channel in RGB order, mean and std in units of 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in 0..255, to float32 of the same memory layout."""
        shape = (1, 3, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(shape) * 255
        scale = 1 / (torch.tensor(self.std, device=images.device).view(shape) * 255)
        return (images.float() - mean) * scale

    def fill(self) -> tuple[int, int, int]:
        """The RGB colour (0..255) that normalises to about zero: for padding."""
        red, green, blue = (round(255 * part) for part in self.mean)
        return red, green, blue

    def to_json(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Normalisation:
        mean, std = (tuple(float(x) for x in data[key]) for key in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("mean and std need three numbers each, std above zero")
        return cls((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
