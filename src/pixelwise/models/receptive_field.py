"""Properties of a network that tiling needs: alignment, map sizes and receptive field."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from pixelwise.layers.forward_context import ReceptiveFieldContext, SizeContext, use_context
from pixelwise.models.profiling import run_on_meta

MAX_DENOMINATOR = 64
INITIAL_LENGTH = 1024
DEFAULT_ALIGNMENT = 32


def tile_alignment(model: nn.Module) -> int:
    """Return the pixel grid on which tiles must start for their maps to be crops of one map.

    For a `Segmenter` this is the coarsest stride times the common denominator of its image scales,
    for any other network DEFAULT_ALIGNMENT.
    """
    if not hasattr(model, "backbone"):
        return DEFAULT_ALIGNMENT
    segmenter: Any = model
    strides: Mapping[str, int] = segmenter.backbone.strides
    scales = [
        Fraction(scale).limit_denominator(MAX_DENOMINATOR)
        for scale in (segmenter.input_scale, *segmenter.scales)
    ]
    return max(strides.values()) * lcm(*(scale.denominator for scale in scales))


def trace_sizes(model: nn.Module, *, height: int, width: int, in_channels: int = 3) -> SizeContext:
    """Return the sizes of all maps that one image would resize and pool, without computing them.

    Args:
        model: The network.
        height: Height of the image.
        width: Width of the image.
        in_channels: Number of image channels.
    """
    sizes = SizeContext()
    with use_context(sizes):
        run_on_meta(model, height=height, width=width, in_channels=in_channels)
    return sizes


@torch.inference_mode()
def measure_receptive_radius(
    model: nn.Module, *, step: int, in_channels: int = 3, most: int | None = None
) -> tuple[int, int] | None:
    """Measure the receptive-field radius: how far a pixel can influence the output, in pixels.

    This is half of the theoretical receptive field, without the effect of image pooling. The
    measurement runs a strip in which some rows are NaN, which every kernel propagates, and doubles
    the strip until its ends stay free of NaN.

    Args:
        model: A network in evaluation mode.
        step: Alignment of tiles, from `tile_alignment`.
        in_channels: Number of image channels.
        most: Largest length of the strip.

    Returns:
        The radius for the logits, and the radius for the maps that are pooled over the image; None
        if a strip of `most` pixels is too short for it, as for a network with attention.
    """
    radii = [
        layer.dilation[0] * (layer.kernel_size[0] // 2) * step
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    length = INITIAL_LENGTH
    while length < 3 * max(radii, default=0):  # the largest kernel must fit into the strip
        length *= 2
    device = next(model.parameters()).device
    while True:
        strip = torch.zeros(1, in_channels, length, max(32, step), device=device)
        first = length // 2 // step * step
        strip[:, :, first : first + step] = torch.nan
        context = ReceptiveFieldContext()
        with use_context(context):
            logits = model(strip)
        radius = _spread(logits.isnan().any(dim=3).any(dim=1)[0], length, first, first + step)
        if radius < length // 2 - step:
            pooled = [_spread(rows, length, first, first + step) for rows in context.pooled]
            return radius, max(pooled, default=0)
        length *= 2
        if most is not None and length > most:
            return None


def _spread(rows: Tensor, length: int, first: int, last: int) -> int:
    """How far True in `rows` extends beyond pixel rows `first` to `last` of the strip."""
    stride = length / len(rows)
    (found,) = rows.nonzero(as_tuple=True)
    if not len(found):
        return 0
    return round(max(first - found[0].item() * stride, (found[-1].item() + 1) * stride - last))
