"""DeepLab v2 on ResNet-101 by kazuto1011 (github.com/kazuto1011/deeplab-pytorch, release v1.0).

PyTorch weights in names of its own. The stages count from the stem, so that `layer2` is our
`layer1`; with several image sizes, all names begin with "base."; its weights from MS-COCO, which
DeepLab v2 starts from, have neither that nor a head.
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
    """The publication, if the file is one. Raises InputError for a ResNet of another depth."""
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
            "ResNet with 50, 101 or 152 layers: is it whole?"
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
        places={ours: f"{prefix}{theirs}" for ours, theirs in _places(depth).items()},
        behind=(f"{prefix}aspp.", f"{prefix}fc."),
    )


def _places(depth: int) -> dict[str, str]:
    """His names, without what they all begin with, by ours."""
    places = _layer("conv1", "bn1", "layer1.conv1")
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        for block in range(blocks):
            ours, theirs = f"layer{stage}.{block}", f"layer{stage + 1}.block{block + 1}"
            for number, name in CONVOLUTIONS.items():
                places |= _layer(f"{ours}.conv{number}", f"{ours}.bn{number}", f"{theirs}.{name}")
            if block == 0:
                shortcut = f"{ours}.downsample"
                places |= _layer(f"{shortcut}.0", f"{shortcut}.1", f"{theirs}.shortcut")
    for branch in range(BRANCHES):
        for part in ("weight", "bias"):
            places[f"head.branches.{branch}.{part}"] = f"aspp.c{branch}.{part}"
    return places


def _layer(convolution: str, norm: str, theirs: str) -> dict[str, str]:
    """A convolution of the backbone and the batch normalization behind it."""
    return {
        f"backbone.{convolution}.weight": f"{theirs}.conv.weight",
        **{f"backbone.{norm}.{part}": f"{theirs}.bn.{part}" for part in NORM},
    }
