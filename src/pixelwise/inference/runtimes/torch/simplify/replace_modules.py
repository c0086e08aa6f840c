"""Replace submodules of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def replace_modules(
    model: nn.Module, matches: Callable[[nn.Module], bool], build: Callable[[Any], nn.Module]
) -> nn.Module:
    """Replace every submodule that `matches` with `build(submodule)`, in place."""
    for name, module in list(model.named_modules()):
        if matches(module):
            model.set_submodule(name, build(module))
    return model
