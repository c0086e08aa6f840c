"""Fold batch normalization into the preceding convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

PROBE_SIZE = 64  # height and width of the image that shows which layer follows which


@torch.no_grad()
def fold_batch_norm(model: nn.Module, *, in_channels: int = 3) -> nn.Module:
    """Fold every BatchNorm2d that directly follows a convolution into it, in place.

    A small image is run through the network to see which BatchNorm2d receives the very tensor that
    a convolution returned. The convolution, with a bias, then does the work of the normalization,
    which an Identity replaces. The result is equal up to rounding. No other layer of the network
    may read that tensor.

    Args:
        model: Network in evaluation mode.
        in_channels: Number of image channels.
    """
    names = {module: name for name, module in model.named_modules()}
    for norm, convolution in _find_foldable(model, in_channels).items():
        fused = fuse_conv_bn_eval(convolution, norm)
        model.set_submodule(names[convolution], fused)
        model.set_submodule(names[norm], nn.Identity())
    return model


def _find_foldable(model: nn.Module, in_channels: int) -> dict[nn.BatchNorm2d, nn.Conv2d]:
    """Return each normalization and its convolution if neither has another partner."""
    outputs: list[tuple[Tensor, nn.Conv2d]] = []
    sources: dict[nn.BatchNorm2d, set[nn.Conv2d | None]] = {}

    def after_convolution(convolution: nn.Conv2d, _: tuple[Tensor, ...], out: Tensor) -> None:
        outputs.append((out, convolution))  # kept alive: no later tensor may reuse its memory

    def before_norm(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        source = next((convolution for out, convolution in outputs if out is inputs[0]), None)
        sources.setdefault(norm, set()).add(source)

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before_norm))
    try:
        device = next(model.parameters()).device
        model(torch.zeros(1, in_channels, PROBE_SIZE, PROBE_SIZE, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}
    for norm, (source, *others) in sources.items():
        if source is not None and not others:
            pairs[norm] = source
    convolutions = list(pairs.values())
    return {norm: source for norm, source in pairs.items() if convolutions.count(source) == 1}
