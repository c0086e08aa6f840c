"""Modules of a network for others in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def replace(
    model: nn.Module, fits: Callable[[nn.Module], bool], make: Callable[[Any], nn.Module]
) -> nn.Module:
    """`model` with make(module) in place of every module that `fits`; it is changed."""
    for name, module in list(model.named_modules()):
        if fits(module):
            model.set_submodule(name, make(module))
    return model
