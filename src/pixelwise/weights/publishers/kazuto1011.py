"""DeepLab v2, v3 and v3+ on ResNet by kazuto1011 (github.com/kazuto1011/deeplab-pytorch).

PyTorch weights under its own names. Stages are counted from the stem, so `layer2` is our `layer1`.
If DeepLab v2 runs at several image scales, all names start with "base.". The weights pretrained on
MS-COCO, from which it starts, have neither this prefix nor a head. Only weights of DeepLab v2 were
published (release v1.0); those of v3 and v3+ come from training with the same code. The output
stride is not in the file: 16 is assumed.
"""

from __future__ import annotations

from itertools import count

from pixelwise.backbones.resnet import BLOCKS
from pixelwise.errors import InputError
from pixelwise.weights.import_weights import ImportedWeights
from pixelwise.weights.publishers.deeplab_caffe import NORMALIZATION, both, resnet_depth
from pixelwise.weights.publishers.publication import Publication

STEM = "layer1.conv1.conv.weight"
CONVOLUTIONS = {1: "reduce", 2: "conv3x3", 3: "increase"}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BRANCHES = 4
IMAGE_POOLING = "aspp.stages.imagepool.conv"  # in v3 and v3+
DECODER = "reduce.conv.weight"  # in v3+
HEAD_PARTS = ("aspp", "fc", "fc1", "fc2", "reduce")
# Layers after the ASPP with batch normalization, and the scores: ours, and theirs without prefix.
HEADS = {
    "deeplab_v3": ({"context.project": "fc1"}, "fc2"),
    "deeplab_v3plus": (
        {
            "context.project": "fc1",
            "detail": "reduce",
            "fuse.0": "fc2.conv1",
            "fuse.1": "fc2.conv2",
        },
        "fc2.conv3",
    ),
}


def kazuto1011(imported: ImportedWeights) -> Publication | None:
    """Return the publication if the file is one of this publisher, else None.

    Raises:
        InputError: If the ResNet has an unknown depth, or DeepLabV3 runs at several scales.
    """
    prefix = next((p for p in ("base.", "") if f"{p}{STEM}" in imported.tensors), None)
    if prefix is None:
        return None
    blocks = tuple(
        next(
            block - 1
            for block in count(1)
            if f"{prefix}layer{stage}.block{block}.reduce.conv.weight" not in imported.tensors
        )
        for stage in (2, 3, 4, 5)
    )
    depth = resnet_depth(imported.path, blocks)
    model = "deeplab_v2"
    if f"{prefix}{IMAGE_POOLING}.conv.weight" in imported.tensors:
        model = "deeplab_v3plus" if f"{prefix}{DECODER}" in imported.tensors else "deeplab_v3"
        if prefix:
            raise InputError(
                f"{imported.path}: holds {model} at several image scales, which only deeplab_v2 "
                'has here: save its part "base" alone'
            )
    score_layer = "aspp.c0" if model == "deeplab_v2" else HEADS[model][1]
    score = imported.tensors.get(f"{prefix}{score_layer}.weight")
    options = (
        {"multi_scale": prefix == "base."}
        if model == "deeplab_v2"
        else {"output_stride": 16, "caffe": True}
    )
    return Publication(
        publisher="kazuto1011",
        model=model,
        imported=imported,
        num_classes=None if score is None or not score.ndim else int(score.shape[0]),
        options={"backbone": f"resnet{depth}", **options},
        normalization=NORMALIZATION,
        backbones=(f"resnet{depth}",),
        names={ours: f"{prefix}{theirs}" for ours, theirs in _names(depth, model).items()},
        head_prefixes=tuple(f"{prefix}{part}." for part in HEAD_PARTS),
        form="caffe",
    )


def _names(depth: int, model: str) -> dict[str, str]:
    """Names in the file, without the common prefix, by our names."""
    names = _backbone_names(depth)
    if model == "deeplab_v2":
        for branch in range(BRANCHES):
            names |= both(f"head.branches.{branch}", f"aspp.c{branch}")
        return names
    layers, score = HEADS[model]
    branches = {f"context.branches.{n}": f"aspp.stages.c{n}" for n in range(BRANCHES)}
    branches[f"context.branches.{BRANCHES}.project"] = IMAGE_POOLING
    for ours, theirs in {**branches, **layers}.items():
        names |= _layer(f"head.{ours}.0", f"head.{ours}.1", theirs)
    return names | both("head.classify", score)


def _backbone_names(depth: int) -> dict[str, str]:
    names = _layer("backbone.conv1", "backbone.bn1", "layer1.conv1")
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        for block in range(blocks):
            ours, theirs = f"backbone.layer{stage}.{block}", f"layer{stage + 1}.block{block + 1}"
            for number, name in CONVOLUTIONS.items():
                names |= _layer(f"{ours}.conv{number}", f"{ours}.bn{number}", f"{theirs}.{name}")
            if block == 0:
                shortcut = f"{ours}.downsample"
                names |= _layer(f"{shortcut}.0", f"{shortcut}.1", f"{theirs}.shortcut")
    return names


def _layer(convolution: str, norm: str, theirs: str) -> dict[str, str]:
    """Names of a convolution and of the batch normalization after it."""
    return {
        f"{convolution}.weight": f"{theirs}.conv.weight",
        **{f"{norm}.{tensor}": f"{theirs}.bn.{tensor}" for tensor in NORM},
    }
