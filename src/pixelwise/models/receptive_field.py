"""What cutting an image into windows asks of a network: alignment, sizes of maps, reach."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.layers.forward_context import ReceptiveFieldContext, SizeContext, running
from pixelwise.models.profiling import run_on_meta

LARGEST_DENOMINATOR = 64
FIRST_LENGTH = 1024
COARSEST = 32


def alignment(model: nn.Module) -> int:
    """Pixels between windows whose maps are parts of one map: the coarsest stride of a `Segmenter`,
    times what its own image scales ask for. Of another network it is taken for COARSEST."""
    if not hasattr(model, "backbone"):
        return COARSEST
    segmenter: Any = model
    strides: Mapping[str, int] = segmenter.backbone.strides
    scales = [Fraction(scale).limit_denominator(LARGEST_DENOMINATOR) for scale in segmenter.scales]
    return max(strides.values()) * lcm(*(scale.denominator for scale in scales))


def trace_sizes(model: nn.Module, *, height: int, width: int, in_channels: int = 3) -> SizeContext:
    """The sizes of the maps that a pass over an image would resize and pool. Nothing is
    computed."""
    sizes = SizeContext()
    with running(sizes):
        run_on_meta(model, height=height, width=width, in_channels=in_channels)
    return sizes


@torch.inference_mode()
def measure_receptive_radius(
    model: nn.Module, *, step: int, in_channels: int = 3
) -> tuple[int, int]:
    """How many pixels away one pixel can change the logits, and the map that is pooled: the half
    of the theoretical receptive field, what the image pooling spreads left out.

    Found by running a strip with rows that are not numbers, which every window takes on, and
    longer strips until their ends stay clean. The model is in evaluation mode.
    """
    taps = [
        layer.dilation[0] * (layer.kernel_size[0] // 2) * step
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    length = FIRST_LENGTH
    while length < 3 * max(taps, default=0):  # rows beyond the strip would not be seen
        length *= 2
    device = next(model.parameters()).device
    while True:
        strip = torch.zeros(1, in_channels, length, max(32, step), device=device)
        first = length // 2 // step * step
        strip[:, :, first : first + step] = torch.nan
        receptive_radius = ReceptiveFieldContext()
        with running(receptive_radius):
            logits = model(strip)
        here = _extent(logits.isnan().any(dim=3).any(dim=1)[0], length, first, first + step)
        if here < length // 2 - step:
            pooled = [
                _extent(rows, length, first, first + step) for rows in receptive_radius.pooled
            ]
            return here, max(pooled, default=0)
        length *= 2


def _extent(rows: Tensor, length: int, first: int, last: int) -> int:
    """How far True comes before row `first` and behind row `last`, in pixels of the strip."""
    stride = length / len(rows)
    (found,) = rows.nonzero(as_tuple=True)
    if not len(found):
        return 0
    return round(max(first - found[0].item() * stride, (found[-1].item() + 1) * stride - last))
