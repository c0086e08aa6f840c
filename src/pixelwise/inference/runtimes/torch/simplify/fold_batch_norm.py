"""Batch normalization folded into the convolution before it: the same function, less work."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

SEEN = 64  # pixels of the square that shows what follows what


@torch.no_grad()
def fold_batch_norm(model: nn.Module, *, in_channels: int = 3) -> nn.Module:
    """`model`, in evaluation mode, without the normalizations that follow convolutions; it is
    changed.

    A small image is run through it to see which BatchNorm2d is given the very tensor that a
    convolution gave: the convolution takes the normalization's work, with a bias, and an Identity
    takes its place. Equal up to rounding. The rest of the network must not look at that tensor.
    """
    names = {module: name for name, module in model.named_modules()}
    for norm, convolution in _followers(model, in_channels).items():
        fused = fuse_conv_bn_eval(convolution, norm)
        model.set_submodule(names[convolution], fused)
        model.set_submodule(names[norm], nn.Identity())
    return model


def _followers(model: nn.Module, in_channels: int) -> dict[nn.BatchNorm2d, nn.Conv2d]:
    """Each normalization with the convolution that it alone follows, and that it alone follows."""
    given: list[tuple[Tensor, nn.Conv2d]] = []
    before: dict[nn.BatchNorm2d, set[nn.Conv2d | None]] = {}

    def gave(convolution: nn.Conv2d, _: tuple[Tensor, ...], out: Tensor) -> None:
        given.append((out, convolution))  # kept, so that no later tensor takes its place in memory

    def got(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        source = next((one for out, one in given if out is inputs[0]), None)
        before.setdefault(norm, set()).add(source)

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(gave))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(got))
    try:
        parameter = next(model.parameters())
        model(torch.zeros(1, in_channels, SEEN, SEEN, device=parameter.device))
    finally:
        for hook in hooks:
            hook.remove()
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}
    for norm, sources in before.items():
        (source, *others) = sources
        if source is not None and not others:
            pairs[norm] = source
    shared = [one for one in pairs.values() if list(pairs.values()).count(one) > 1]
    return {norm: one for norm, one in pairs.items() if one not in shared}
