"""Networks that give the same result with less work, for every runtime: one file a way."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pixelwise.inference.runtimes.torch.simplify.fold_batch_norm import fold_batch_norm
from pixelwise.inference.runtimes.torch.simplify.fold_image_pooling import fold_image_pooling
from pixelwise.inference.runtimes.torch.simplify.fold_padding_frame import fold_frame
from pixelwise.inference.runtimes.torch.simplify.matrix_products import multiply_large_windows
from pixelwise.inference.runtimes.torch.simplify.skip_outside_taps import leave_out_taps
from pixelwise.models import Segmenter

__all__ = ["simplify"]


def simplify(
    model: nn.Module,
    *,
    every_size: bool = False,
    quantizable: bool = False,
    in_channels: int = 3,
) -> nn.Module:
    """A copy of `model` for prediction: the same function, up to rounding, with less work.

    For any image size. every_size: what depends on the size is worked out for all sizes now, which
    takes seconds and is what `torch.export` needs, and not when a size first comes.
    quantizable: only what is faster in int8, too. Maps less their uniform values are signed there,
    and their convolutions slower than those of the whole frame. in_channels: of the images.
    """
    simplified = copy.deepcopy(model).eval()
    if isinstance(simplified, Segmenter):
        simplified.auxiliary = None  # is there for its loss
    simplified = fold_batch_norm(simplified, in_channels=in_channels)
    if quantizable:
        return simplified
    with torch.random.fork_rng(devices=[]):  # new layers draw weights, and training draws on
        simplified = fold_frame(simplified, every_size=every_size)
        simplified = fold_image_pooling(simplified)
        simplified = multiply_large_windows(simplified)
        return simplified if every_size else leave_out_taps(simplified)
