"""Rewrite a network so that it computes the same function with less work, for every runtime.

One file per rewrite.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from pixelwise.inference.runtimes.torch.simplify.crop_dilated_kernels import crop_dilated_kernels
from pixelwise.inference.runtimes.torch.simplify.fold_batch_norm import fold_batch_norm
from pixelwise.inference.runtimes.torch.simplify.fold_image_pooling import fold_image_pooling
from pixelwise.inference.runtimes.torch.simplify.fold_padding_border import fold_padding_border
from pixelwise.inference.runtimes.torch.simplify.matrix_product_conv import use_matrix_products
from pixelwise.models import Segmenter

__all__ = ["simplify"]


def simplify(
    model: nn.Module, *, every_size: bool = False, quantizable: bool = False, in_channels: int = 3
) -> nn.Module:
    """Return a copy of a network for prediction that needs less work.

    It computes the same function up to rounding, for any image size.

    Args:
        model: The network.
        every_size: Precompute whatever depends on the image size for all sizes, as `torch.export`
            requires. This takes seconds; by default it is computed when a size first occurs.
        quantizable: Apply only rewrites that are also faster in int8. Feature maps without their
            border value are signed, which makes their int8 convolutions slower than those of the
            whole padded map.
        in_channels: Number of image channels.
    """
    simplified = copy.deepcopy(model).eval()
    if isinstance(simplified, Segmenter):
        simplified.auxiliary = None  # only the loss uses it
    simplified = fold_batch_norm(simplified, in_channels=in_channels)
    if quantizable:
        return simplified
    with torch.random.fork_rng(devices=[]):  # new layers must not advance training's random state
        simplified = fold_padding_border(simplified, every_size=every_size)
        simplified = fold_image_pooling(simplified)
        simplified = use_matrix_products(simplified)
        return simplified if every_size else crop_dilated_kernels(simplified)
