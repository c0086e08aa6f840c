"""How large a network is: parameters, multiply-adds, what its layers put out, memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def count_parameters(model: nn.Module) -> int:
    """Learnable numbers, those of batch normalization included."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, *, height: int, width: int) -> int:
    """Multiply-adds of the convolutions and linear layers for one (3, height, width) image.

    This is the papers' convention: normalization, activations and resizing are not counted. A model
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


def peak_bytes(model: nn.Module, *, height: int, width: int, in_channels: int = 3) -> int:
    """The most memory that the maps of one (in_channels, height, width) image take at once.

    Without the weights, and without what libraries take for a layer's own work: some 15 % more on a
    CPU. Nothing is computed. The model is in evaluation mode.
    """
    memory = _Memory()
    run_on_meta(model, height=height, width=width, in_channels=in_channels, mode=memory)
    return memory.peak


@torch.inference_mode()
def run_on_meta(
    model: nn.Module,
    *,
    height: int,
    width: int,
    in_channels: int = 3,
    mode: AbstractContextManager[object] | None = None,
) -> None:
    """A forward of one image without any arithmetic, and without copying the weights.

    mode: what the image is made and the forward is run in.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    with mode or nullcontext():
        functional_call(model, shapes, torch.empty(1, in_channels, height, width, device="meta"))


class _Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operations give, until they are let go."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self.counted:  # a view, or a layer that works in place
            return
        self.counted.add(storage)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._let_go, storage.nbytes())

    def _let_go(self, size: int) -> None:
        self.live -= size
