"""DeepLab v2 on ResNet-101 by kazuto1011 (github.com/kazuto1011/deeplab-pytorch, release v1.0).

PyTorch weights under its own names. Stages are counted from the stem, so `layer2` is our `layer1`.
If the network runs at several image scales, all names start with "base.". The weights pretrained on
MS-COCO, from which DeepLab v2 starts, have neither this prefix nor a head.
"""

from __future__ import annotations

from itertools import count

from pixelwise.backbones.resnet import BLOCKS
from pixelwise.errors import InputError
from pixelwise.weights.import_weights import ImportedWeights
from pixelwise.weights.normalization import caffe_normalization
from pixelwise.weights.publishers.publication import Publication

NORMALIZATION = caffe_normalization(104.008, 116.669, 122.675)  # configs/*.yaml
STEM = "layer1.conv1.conv.weight"
CONVOLUTIONS = {1: "reduce", 2: "conv3x3", 3: "increase"}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BRANCHES = 4
DEPTHS = {blocks: depth for depth, blocks in BLOCKS.items() if depth >= 50}


def kazuto1011(imported: ImportedWeights) -> Publication | None:
    """Return the publication if the file is one of this publisher, else None.

    Raises:
        InputError: If the ResNet has an unknown depth.
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
    if blocks not in DEPTHS:
        raise InputError(
            f"{imported.path}: has {', '.join(map(str, blocks))} blocks in its stages, which is no "
            "ResNet with 50, 101 or 152 layers: is the file complete?"
        )
    depth = DEPTHS[blocks]
    score = imported.tensors.get(f"{prefix}aspp.c0.weight")
    return Publication(
        publisher="kazuto1011",
        model="deeplab_v2",
        imported=imported,
        num_classes=None if score is None or not score.ndim else int(score.shape[0]),
        options={"backbone": f"resnet{depth}", "multi_scale": prefix == "base."},
        normalization=NORMALIZATION,
        backbones=(f"resnet{depth}",),
        names={ours: f"{prefix}{theirs}" for ours, theirs in _names(depth).items()},
        head_prefixes=(f"{prefix}aspp.", f"{prefix}fc."),
    )


def _names(depth: int) -> dict[str, str]:
    """Names in the file, without the common prefix, by our names."""
    names = _layer("conv1", "bn1", "layer1.conv1")
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        for block in range(blocks):
            ours, theirs = f"layer{stage}.{block}", f"layer{stage + 1}.block{block + 1}"
            for number, name in CONVOLUTIONS.items():
                names |= _layer(f"{ours}.conv{number}", f"{ours}.bn{number}", f"{theirs}.{name}")
            if block == 0:
                shortcut = f"{ours}.downsample"
                names |= _layer(f"{shortcut}.0", f"{shortcut}.1", f"{theirs}.shortcut")
    for branch in range(BRANCHES):
        for tensor in ("weight", "bias"):
            names[f"head.branches.{branch}.{tensor}"] = f"aspp.c{branch}.{tensor}"
    return names


def _layer(convolution: str, norm: str, theirs: str) -> dict[str, str]:
    """Names of a convolution of the backbone and of the batch normalization after it."""
    return {
        f"backbone.{convolution}.weight": f"{theirs}.conv.weight",
        **{f"backbone.{norm}.{tensor}": f"{theirs}.bn.{tensor}" for tensor in NORM},
    }
