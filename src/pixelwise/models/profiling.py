"""The size of a network: parameters, multiply-adds, activations, memory."""

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
    """Count the trainable parameters, including the scales and shifts of batch normalization."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, *, height: int, width: int) -> int:
    """Count the multiply-adds of convolutions and linear layers for one image.

    This is the convention of the papers: normalization, activations and resizing do not count. A
    model on the meta device is measured without any arithmetic.

    Args:
        model: The network.
        height: Height of the image, which has three channels.
        width: Width of the image.
    """
    total = 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.ConvTranspose2d):  # applies its kernel at every input position
            total += inputs[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features

    _run_with_hook(model, count, height=height, width=width)
    return total


def count_activations(model: nn.Module, *, height: int, width: int) -> int:
    """Count the activations of all layers for one image; training keeps most of them.

    For the arguments see `count_multiply_adds`.
    """
    total = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, Tensor) and not any(module.children()):
            total += output.numel()

    _run_with_hook(model, count, height=height, width=width)
    return total


def _run_with_hook(
    model: nn.Module, hook: Callable[[nn.Module, Any, Any], None], *, height: int, width: int
) -> None:
    """Run the model on one image and call `hook` after each module."""
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
    """Compute the peak memory of the feature maps of one image, in bytes.

    Excludes the weights and the workspace of the libraries, which adds about 15 % on a CPU. Nothing
    is computed; only shapes are propagated. For the arguments see `run_on_meta`.
    """
    memory = _MemoryCounter()
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
) -> Any:
    """Propagate the shapes of one image through a model, without arithmetic or copied weights.

    Returns the model's output on the meta device.

    Args:
        model: The network, on any device.
        height: Height of the image.
        width: Width of the image.
        in_channels: Number of image channels.
        mode: Context manager in which the image is created and the model runs.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    with mode or nullcontext():
        image = torch.empty(1, in_channels, height, width, device="meta")
        return functional_call(model, shapes, image)


class _MemoryCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks the bytes of all tensors that operations return, until they are freed."""

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
        if storage in self.counted:  # a view, or the output of an in-place layer
            return
        self.counted.add(storage)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.live -= size
