"""How large a network is: parameters, multiply-adds, and what its layers put out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def count_parameters(model: nn.Module) -> int:
    """Learnable numbers, those of batch normalisation included."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, *, height: int, width: int) -> int:
    """Multiply-adds of the convolutions and linear layers for one (3, height, width) image.

    This is the papers' convention: normalisation, activations and resizing are not counted. A model
    on the meta device is measured without any arithmetic.
    """
    total = 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.ConvTranspose2d):  # its kernel is laid on every input position
            total += inputs[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features

    _pass_through(model, count, height=height, width=width)
    return total


def count_activations(model: nn.Module, *, height: int, width: int) -> int:
    """Numbers that the layers put out for one (3, height, width) image: training keeps most.

    A model on the meta device is measured without any arithmetic.
    """
    total = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, Tensor) and not any(module.children()):
            total += output.numel()

    _pass_through(model, count, height=height, width=width)
    return total


def _pass_through(
    model: nn.Module, hook: Callable[[nn.Module, Any, Any], None], *, height: int, width: int
) -> None:
    """One image, and `hook` for each module that it passes."""
    handles = [module.register_forward_hook(hook) for module in model.modules()]
    training = model.training
    try:
        device = next(model.parameters()).device
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, height, width, device=device))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
