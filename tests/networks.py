"""Helpers for tests of networks: random weights, bundles, a distance, overfitting four images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.data.classes import Classes
from pixelwise.models import Segmenter, create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import IMAGENET

EXPORTED_CLASSES = Classes.make(["soil", "plant", "stone"], values=[0, 10, 200], ignore=255)


def randomize(model: nn.Module, seed: int = 0) -> Any:
    """Set all weights and running statistics to random values; return the model in eval mode.

    Weights that are initialized to zero get values, too. Scales below 1 keep the sums of deep
    residual networks small.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.3, 0.7),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.7, 1.3),
            ):
                tensor.data.uniform_(low, high, generator=generator)
            continue
        for parameter in module.parameters(recurse=False):
            std = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.data.normal_(0, std, generator=generator)
    return model.eval()


def write_varied_bundle(path: Path, classes: Classes) -> Path:
    """Write a tiny DeepLab v3+ with random weights whose masks have all classes.

    The mask of a random network usually has one class only, and equal masks would prove nothing.
    """
    options = {"backbone": "tiny", "output_stride": 16}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = randomize(create_model("deeplab_v3plus", num_classes=len(classes), **options))
        logits = model(noise(1, 3, 64, 96))
        model.head.classify.bias -= logits.mean((0, 2, 3))
    Bundle("deeplab_v3plus", options, classes, IMAGENET, model.state_dict()).save(path)
    return path


def noise(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def relative_difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return ((one - other).abs().max() / (other.max() - other.min())).item()


def overfit(model: Segmenter, *, rate: float, steps: int, side: int = 65) -> float:
    """Train on four images of `side` x `side` pixels, in the current mode of the model.

    Returns the fraction of pixels that the model then classifies correctly.
    """
    half = (side + 1) // 2
    labels = torch.arange(side).view(1, side, 1).expand(4, side, side) // half
    labels = labels + torch.tensor([0, 0, 1, 1]).view(4, 1, 1)
    colors = torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0, -1, 1]])
    images = colors[labels].permute(0, 3, 1, 2) + 0.1 * noise(4, 3, side, side)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        logits = model.training_logits(images)
        loss = torch.stack([F.cross_entropy(each, labels) for each in logits]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def write_bundle(path: Path, name: str, classes: Classes, **options: object) -> Path:
    """Write a network with random weights and statistics."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=len(classes), **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if (
                not parameter.any()
            ):  # FCN initializes its score layers to 0, and equal logits prove nothing
                parameter.normal_(0, 0.05)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.8, 1.2)
    Bundle(name, options, classes, IMAGENET, model.state_dict()).save(path)
    return path
