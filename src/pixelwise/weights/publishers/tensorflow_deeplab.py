"""DeepLabV3+ by its authors (github.com/tensorflow/models, research/deeplab): TensorFlow's names.

Published are Xception-65 with ASPP and decoder; MobileNetV2 without a decoder, whose ASPP consists
of image pooling and the 1x1 convolution; and the same backbones as ImageNet classifiers. The file
does not contain the output stride of the training; 16 is the one in the list that comes with the
weights (model_zoo.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pixelwise.backbones.mobilenet_v2 import STAGES
from pixelwise.backbones.xception import MIDDLE_BLOCKS
from pixelwise.errors import InputError
from pixelwise.weights.import_weights import ImportedWeights
from pixelwise.weights.normalization import TENSORFLOW
from pixelwise.weights.publishers.publication import Publication

BACKBONES = {"xception65": "xception_65/", "mobilenet_v2": "MobilenetV2/"}
SCORE = "logits/semantic/weights"
# Prefixes of the layers after the backbone, in these networks and in classifiers.
HEAD_PREFIXES = (
    "aspp",
    "image_pooling/",
    "concat_projection/",
    "decoder/",
    "logits/",
    "xception_65/logits/",
    "MobilenetV2/Conv_1/",
    "MobilenetV2/Logits/",
)
PROJECTION = "concat_projection/weights"
BRANCH_CHANNELS = 256
MOBILENET_BLOCKS = sum(repeats for _, _, repeats, _ in STAGES)
BRANCHES = 3  # of the ASPP, besides the 1x1 convolution and the pooling
NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def tensorflow(imported: ImportedWeights) -> Publication | None:
    """Return the publication if the file is a TensorFlow checkpoint, else None.

    Raises:
        InputError: If the checkpoint contains another network.
    """
    if imported.kind != "tensorflow":
        return None
    slots, weights = _split(imported.tensors)
    found = [name for name, scope in BACKBONES.items() if any(n.startswith(scope) for n in weights)]
    if len(found) != 1:
        scopes = sorted({name.partition("/")[0] for name in weights})
        more = ", ..." if len(scopes) > 6 else ""
        raise InputError(
            f"{imported.path}: contains {', '.join(scopes[:6])}{more}: among TensorFlow's "
            f"checkpoints, only DeepLab with {' or '.join(BACKBONES.values())} is supported"
        )
    (backbone,) = found
    score = weights.get(SCORE)
    return Publication(
        publisher="TensorFlow",
        model="deeplab_v3plus",
        imported=replace(imported, tensors={n: _to_pytorch(n, t) for n, t in weights.items()}),
        num_classes=None if score is None or not score.ndim else int(score.shape[-1]),
        options=_options(backbone, weights),
        normalization=TENSORFLOW,
        backbones=(backbone,),
        names={**_xception(), **_mobilenet_v2(), **_head()},
        head_prefixes=HEAD_PREFIXES,
        not_weights=_describe(slots),
        form="tensorflow" if backbone == "mobilenet_v2" else "",
    )


def _split(tensors: Mapping[str, Tensor]) -> tuple[list[str], dict[str, Tensor]]:
    """Separate the optimizer's slots, whose names extend their variable's, from the weights."""
    slots = [
        name for name in tensors if name.rpartition("/")[0] in tensors or name == "global_step"
    ]
    return slots, {name: tensor for name, tensor in tensors.items() if name not in set(slots)}


def _describe(slots: Iterable[str]) -> str:
    """Summarize hundreds of slots by their kinds and counts."""
    kinds = Counter(name.rpartition("/")[2] for name in slots)
    return ", ".join(
        kind if count == 1 else f"{count} tensors {kind}" for kind, count in kinds.items()
    )


def _options(backbone: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    options: dict[str, Any] = {"backbone": backbone, "output_stride": 16, "align_corners": True}
    if backbone == "mobilenet_v2":
        options["tensorflow"] = True
        last = weights.get(f"MobilenetV2/expanded_conv_{MOBILENET_BLOCKS - 1}/project/weights")
        if last is not None and last.ndim == 4 and last.shape[3] != STAGES[-1][1]:
            options["width"] = last.shape[3] / STAGES[-1][1]
    if SCORE in weights:
        options["decoder"] = any(name.startswith("decoder/") for name in weights)
        options["aspp"] = any(name.startswith("aspp1") for name in weights)
        if "aspp1/weights" in weights:
            options["separable"] = False
    return options


def _to_pytorch(name: str, tensor: Tensor) -> Tensor:
    """Convert a tensor to PyTorch's layout and our order of channels.

    Kernels (H, W, in, out) become (out, in, H, W), depthwise ones (H, W, C, 1) become (C, 1, H, W).
    In the projection of the ASPP branches, image pooling moves from the first to the last place.
    """
    if tensor.ndim != 4:
        return tensor
    if name.endswith("/depthwise_weights"):
        return tensor.permute(2, 3, 0, 1)
    tensor = tensor.permute(3, 2, 0, 1)
    if name == PROJECTION:
        tensor = torch.cat([tensor[:, BRANCH_CHANNELS:], tensor[:, :BRANCH_CHANNELS]], dim=1)
    return tensor


# --- Names of the tensors in the file by our names


def _layer(ours: str, scope: str, *, depthwise: bool = False) -> dict[str, str]:
    """Names of one of our ConvNormAct modules."""
    return _norm_layer(f"{ours}.0", f"{ours}.1", scope, depthwise=depthwise)


def _norm_layer(
    convolution: str, norm: str, scope: str, *, depthwise: bool = False
) -> dict[str, str]:
    weights = "depthwise_weights" if depthwise else "weights"
    return {
        f"{convolution}.weight": f"{scope}/{weights}",
        **{f"{norm}.{ours}": f"{scope}/BatchNorm/{theirs}" for ours, theirs in NORM.items()},
    }


def _separable(first: str, second: str, scope: str) -> dict[str, str]:
    """Names of our ConvNormAct modules for a depthwise and a pointwise convolution."""
    return {
        **_layer(first, f"{scope}_depthwise", depthwise=True),
        **_layer(second, f"{scope}_pointwise"),
    }


def _xception() -> dict[str, str]:
    flow = "xception_65/{}/unit_{}/xception_module"
    names = {
        **_layer("backbone.stem.0", "xception_65/entry_flow/conv1_1"),
        **_layer("backbone.stem.1", "xception_65/entry_flow/conv1_2"),
    }
    blocks = {
        **{f"entry{number}": flow.format(f"entry_flow/block{number}", 1) for number in (1, 2, 3)},
        **{
            f"middle.{block}": flow.format("middle_flow/block1", block + 1)
            for block in range(MIDDLE_BLOCKS)
        },
        "exit1": flow.format("exit_flow/block1", 1),
    }
    for block, scope in blocks.items():
        ours = f"backbone.{block}"
        for number, name in enumerate(("first", "second", "third"), start=1):
            unit = f"{ours}.{name}"
            names |= _separable(f"{unit}.1", f"{unit}.2", f"{scope}/separable_conv{number}")
        names |= _layer(f"{ours}.shortcut", f"{scope}/shortcut")
    scope = flow.format("exit_flow/block2", 1)
    for number in range(3):
        unit = f"backbone.exit2.{number}"
        names |= _separable(f"{unit}.0", f"{unit}.1", f"{scope}/separable_conv{number + 1}")
    return names


def _mobilenet_v2() -> dict[str, str]:
    names = _layer("backbone.features.0", "MobilenetV2/Conv")
    for block in range(MOBILENET_BLOCKS):
        scope = "MobilenetV2/expanded_conv" + (f"_{block}" if block else "")
        ours = f"backbone.features.{block + 1}.conv"
        first = min(block, 1)  # only the first block has no expansion
        if first:
            names |= _layer(f"{ours}.0", f"{scope}/expand")
        names |= _layer(f"{ours}.{first}", f"{scope}/depthwise", depthwise=True)
        names |= _norm_layer(f"{ours}.{first + 1}", f"{ours}.{first + 2}", f"{scope}/project")
    return names


def _head() -> dict[str, str]:
    """Names of all forms of the head: with and without ASPP, decoder, separable convolutions."""
    context = "head.context"
    names = {
        **_layer(f"{context}.branches.0", "aspp0"),
        **_layer(f"{context}.branches.1.project", "image_pooling"),  # without ASPP
        **_layer(f"{context}.branches.{BRANCHES + 1}.project", "image_pooling"),
        **_layer(f"{context}.project", "concat_projection"),
        **_layer("head.detail", "decoder/feature_projection0"),
        "head.classify.weight": SCORE,
        "head.classify.bias": "logits/semantic/biases",
    }
    for rate in range(1, BRANCHES + 1):
        branch = f"{context}.branches.{rate}"
        names |= _separable(f"{branch}.0", f"{branch}.1", f"aspp{rate}")
        names |= _layer(branch, f"aspp{rate}")
    for number in (0, 1):
        fuse = f"head.fuse.{number}"
        names |= _separable(f"{fuse}.0", f"{fuse}.1", f"decoder/decoder_conv{number}")
        names |= _layer(fuse, f"decoder/decoder_conv0/decoder_conv0_{number + 1}")
    return names
