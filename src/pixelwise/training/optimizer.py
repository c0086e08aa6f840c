"""The optimizer and the learning rate schedule of a recipe."""

from __future__ import annotations

import math

import torch
from torch import nn

from pixelwise.models import Segmenter
from pixelwise.recipes.schema import Recipe

_NORMALIZATION = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Create the optimizer of a recipe.

    The heads of a `Segmenter` have multiples of the backbone's learning rate; all parameters of
    another module have the backbone's. Weight decay applies to kernels, not to biases and
    normalization layers.
    """
    settings = recipe.optimizer
    modules: list[tuple[nn.Module | None, float]] = [(model, 1.0)]
    if isinstance(model, Segmenter):
        modules = [
            (model.backbone, 1.0),
            (model.head, settings.head_multiplier),
            (model.auxiliary, settings.auxiliary_multiplier),
        ]
    groups = []
    for module, multiplier in modules:
        if module is None:
            continue
        rate = settings.learning_rate * multiplier
        kernels, biases, norms = _parameters_by_kind(module)
        groups += [
            {"params": kernels, "lr": rate, "weight_decay": settings.weight_decay},
            {"params": biases, "lr": rate * settings.bias_multiplier, "weight_decay": 0.0},
            {"params": norms, "lr": rate, "weight_decay": 0.0},
        ]
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, betas=(settings.momentum, 0.999))
    return torch.optim.SGD(groups, momentum=settings.momentum)


def _parameters_by_kind(model: nn.Module) -> list[list[nn.Parameter]]:
    """Return kernels, biases, and the parameters of normalization layers, without frozen ones."""
    kinds: dict[str, list[nn.Parameter]] = {"kernel": [], "bias": [], "norm": []}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                kind = "bias" if name == "bias" else "kernel"
                kinds["norm" if isinstance(module, _NORMALIZATION) else kind].append(parameter)
    return list(kinds.values())


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, *, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Create the learning rate schedule, to be stepped after each of the `steps` updates.

    `poly` is the schedule of DeepLab v2 (arXiv:1606.00915, section 4.1). `stages` is that of v1:
    each stage has a tenth of the learning rate of the one before. `cosine` is half a period of a
    cosine (arXiv:1608.03983, equation 5, without restarts).
    """
    settings = recipe.optimizer
    if settings.schedule == "stages":
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.1 ** min(step * settings.stages // steps, settings.stages - 1)
        )
    if settings.schedule == "cosine":
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + math.cos(math.pi * min(step, steps) / steps)) / 2
        )
    return torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=steps, power=settings.power)
