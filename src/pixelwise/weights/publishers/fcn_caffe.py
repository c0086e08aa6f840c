"""FCN by its authors (github.com/shelhamer/fcn.berkeleyvision.org): Caffe's layer names.

The names come from */net.py in the reference code, where every network has its score layers and
one bilinear kernel per upsampling.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from pixelwise.backbones import Backbone
from pixelwise.layers import LearnedUpsampling, bilinear_kernel
from pixelwise.models import Segmenter
from pixelwise.models.fcn import FCNSkipHead
from pixelwise.weights.import_weights import ImportedWeights
from pixelwise.weights.normalization import CAFFE, Normalization, caffe_normalization

# The authors' layers after fc7, and their names in FCNSkipHead.
_STRIDE_32 = {"score_fr": "score", "upscore": "upsampling"}
_POOL4 = {"score_fr": "score", "upscore2": "doubling.c4", "score_pool4": "skips.c4"}
_POOL3 = {"upscore_pool4": "doubling.c3", "score_pool3": "skips.c3"}
_STRIDE_16 = {**_POOL4, "upscore16": "upsampling"}
_STRIDE_8 = {**_POOL4, **_POOL3, "upscore8": "upsampling"}
HEADS = {
    "fcn32s": _STRIDE_32,
    "fcn16s": _STRIDE_16,
    "fcn8s": _STRIDE_8,
    "fcn8s_atonce": _STRIDE_8,
    "fcn_alexnet": _STRIDE_32,
}
# Layers that scale each channel of a map before it is scored; FCNSkipHead has a single factor.
SCALES = {"fcn8s_atonce": {"scale_pool4": "c4", "scale_pool3": "c3"}}

# The authors' other datasets by their number of classes, with their normalization. The mean is
# that of PASCAL VOC unless the authors give another one.
OTHER_DATASETS: dict[int, tuple[str, Normalization]] = {
    33: ("SIFT Flow", caffe_normalization(114.578, 115.294, 108.353)),
    40: ("NYUDv2 in color", caffe_normalization(116.190, 97.203, 92.318)),
    60: ("PASCAL-Context", CAFFE),
}


def select_semantic_head(imported: ImportedWeights) -> ImportedWeights:
    """Keep the semantic head of the networks on SIFT Flow, which have two: *_sem and *_geo."""
    tensors = {name.replace("_sem.", "."): tensor for name, tensor in imported.tensors.items()}
    return replace(imported, tensors=tensors)


def learned_upsampling(imported: ImportedWeights, model: str) -> list[str]:
    """Return the upsampling layers whose kernels are not bilinear."""
    return [layer for layer in HEADS[model] if _is_learned(imported, layer)]


def _is_learned(imported: ImportedWeights, layer: str) -> bool:
    weight = imported.tensors.get(f"{layer}.weight")
    if not layer.startswith("upscore") or weight is None or weight.ndim != 4:
        return False
    if weight.shape[0] != weight.shape[1] or weight.shape[2] != weight.shape[3]:
        return False  # invalid either way: the mapping reports its shape
    return not torch.allclose(weight, _bilinear(weight.shape[0], weight.shape[2]), atol=1e-6)


def _bilinear(channels: int, size: int) -> Tensor:
    """(C, C, size, size): a transposed convolution that upsamples each channel on its own."""
    weight = torch.zeros(channels, channels, size, size)
    weight[range(channels), range(channels)] = bilinear_kernel(size)
    return weight


def built_in_tensors(network: Segmenter, model: str) -> dict[str, Tensor]:
    """Return what the authors' files store but our network computes: frozen kernels and scales."""
    head, channels = cast(FCNSkipHead, network.head), cast(Backbone, network.backbone).channels
    tensors = {}
    for theirs, ours in HEADS[model].items():
        module: nn.Module = head.get_submodule(ours)
        if theirs.startswith("upscore") and not isinstance(module, LearnedUpsampling):
            kernel_size = cast(tuple[int, int, int], module.geometry)[0]
            tensors[f"{theirs}.weight"] = _bilinear(head.score.out_channels, kernel_size)
    for theirs, ours in SCALES.get(model, {}).items():
        tensors[f"{theirs}.weight"] = torch.full((channels[ours],), head.scales[ours])
    return tensors
