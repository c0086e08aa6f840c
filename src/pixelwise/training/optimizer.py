"""The optimizer and its rate, as a recipe states them."""

from __future__ import annotations

import torch
from torch import nn

from pixelwise.models import Segmenter
from pixelwise.recipes.schema import Recipe


def make_optimizer(model: Segmenter, recipe: Recipe) -> torch.optim.SGD:
    """SGD with the heads' rates multiples of the backbone's; only convolution kernels decay."""
    rates = recipe.optimizer
    parts = [
        (model.backbone, rates.learning_rate),
        (model.head, rates.learning_rate * rates.head_multiplier),
    ]
    if model.auxiliary is not None:
        parts.append((model.auxiliary, rates.learning_rate * rates.auxiliary_multiplier))
    groups = []
    for part, rate in parts:
        kernels: list[nn.Parameter] = []
        biases: list[nn.Parameter] = []
        norms: list[nn.Parameter] = []
        for module in part.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad:
                    continue
                if isinstance(module, nn.BatchNorm2d):
                    norms.append(parameter)
                else:
                    (biases if name == "bias" else kernels).append(parameter)
        groups += [
            {"params": kernels, "lr": rate, "weight_decay": rates.weight_decay},
            {"params": biases, "lr": rate * rates.bias_multiplier, "weight_decay": 0.0},
            {"params": norms, "lr": rate, "weight_decay": 0.0},
        ]
    return torch.optim.SGD(groups, momentum=rates.momentum)


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, *, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The poly rate of DeepLab v2 (arXiv:1606.00915, section 4.1), or the stages of v1, a tenth
    each of the one before; stepped after each update."""
    rates = recipe.optimizer
    if rates.schedule == "stages":
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.1 ** min(step * rates.stages // steps, rates.stages - 1)
        )
    return torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=steps, power=rates.power)
