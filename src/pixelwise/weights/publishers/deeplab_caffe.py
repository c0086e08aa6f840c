"""DeepLab v1 and v2 by their authors, and ResNet by its authors: Caffe's layer names.

On VGG16 the layers are conv1_1 to conv5_3, fc6, fc7 and fc8_DATASET; v2's fields of view are
numbered, as in fc6_1. On ResNet a layer is a convolution (res2a_branch1), a normalization
(bn2a_branch1) and a scale (scale2a_branch1), and the scores are fc1_DATASET_c0 to c3. A network
with several image scales has a copy of each layer for scales 0.75 (res075) and 0.5 (res05), which
shares its weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelwise.backbones.resnet import BLOCKS
from pixelwise.backbones.vgg import STAGES
from pixelwise.errors import InputError
from pixelwise.weights.import_weights import ImportedWeights
from pixelwise.weights.normalization import caffe_normalization
from pixelwise.weights.publishers.publication import Publication

NORMALIZATION = caffe_normalization(104.008, 116.669, 122.675)  # mean_value in the authors' nets
VGG_SCORE = re.compile(r"fc8_\w+?(?:_\d)?\.weight")
RESNET_SCORE = re.compile(r"(fc1_.+_c)0\.weight")
OTHER_SCALES = re.compile(r"_?res0(?:75|5)_?")
RATES = {3: 12, 4: 4, 7: 4}  # of fc6 in v1, by its kernel
FIELDS = 4  # of v2
DEPTHS = {blocks: depth for depth, blocks in BLOCKS.items() if depth >= 50}
NORM = ("weight", "bias", "running_mean", "running_var")
BRANCHES = {1: "2a", 2: "2b", 3: "2c"}  # names of the convolutions of a bottleneck


def deeplab_caffe(imported: ImportedWeights) -> Publication | None:
    """Return the publication if the file is a Caffe file of DeepLab or ResNet, else None.

    Raises:
        InputError: If the weights of the image scales differ, or the ResNet has an unknown depth.
    """
    if not imported.is_caffe:
        return None
    tensors, copies = _merge_scales(imported)
    merged = replace(imported, tensors=tensors)
    not_weights = f"{copies} shared copies for the other image scales" if copies else ""
    if "res2a_branch1.weight" in tensors:
        return replace(_resnet(merged, multi_scale=copies > 0), not_weights=not_weights)
    scores = sorted(match[0] for name in tensors if (match := VGG_SCORE.fullmatch(name)))
    return replace(_vgg(merged, scores), not_weights=not_weights) if scores else None


def _merge_scales(imported: ImportedWeights) -> tuple[dict[str, Tensor], int]:
    """Drop the copies of layers for other image scales; return the others and their number."""
    tensors, copies, different = {}, 0, []
    for name, tensor in imported.tensors.items():
        shared = imported.tensors.get(OTHER_SCALES.sub("", name))
        if shared is None or not OTHER_SCALES.search(name):
            tensors[name] = tensor
            continue
        copies += 1
        if not torch.equal(tensor, shared):
            different.append(name)
    if different:
        raise InputError(
            f"{imported.path}: {len(different)} tensors differ from those of image scale 1, such "
            f"as {different[0]}: the scales must share their weights"
        )
    return tensors, copies


def _vgg(imported: ImportedWeights, scores: list[str]) -> Publication:
    layers = [
        f"conv{stage}_{number}"
        for stage, (_, repeats) in enumerate(STAGES, start=1)
        for number in range(1, repeats + 1)
    ]
    numbered = len(scores) > 1 or scores[0].endswith("_1.weight")
    ends = [f"_{number}" for number in range(1, FIELDS + 1)] if numbered else [""]
    names = _convolutions(layers)
    for field, end in enumerate(ends):
        for index, layer in ((0, "fc6"), (3, "fc7")):
            names |= both(f"backbone.classifiers.{field}.{index}", f"{layer}{end}")
        score = scores[0].removesuffix(".weight")
        base = score.removesuffix("_1") if numbered else score
        names |= both(f"head.scores.{field}" if numbered else "head.score", f"{base}{end}")
    options = _fields_of_view(imported.tensors, numbered=numbered)
    return Publication(
        publisher="DeepLab's Caffe",
        model="deeplab_v2" if numbered else "deeplab_v1",
        imported=imported,
        num_classes=int(imported.tensors[scores[0]].shape[0]),
        options=options,
        normalization=NORMALIZATION,
        backbones=("vgg16",),
        names=names,
        head_prefixes=("fc8_",),
        notes=(
            {"aspp": "L, assumed, because the file has no rates"}
            if numbered
            else {"rate": f"{options.get('rate')}, assumed from fc6's kernel"}
        ),
    )


def _fields_of_view(tensors: Mapping[str, Tensor], *, numbered: bool) -> dict[str, Any]:
    """Options of the network; a shape that fits none is left to the mapping, which reports it."""
    if numbered:
        return {"backbone": "vgg16", "multi_scale": False}
    fc6 = tensors.get("fc6.weight")
    if fc6 is None or fc6.ndim != 4 or int(fc6.shape[3]) not in RATES:
        return {}
    kernel_size = int(fc6.shape[3])
    return {
        "kernel_size": kernel_size,
        "rate": RATES[kernel_size],
        "hidden": int(fc6.shape[0]),
        "average_pool": kernel_size == 3,
    }


def _convolutions(layers: list[str]) -> dict[str, str]:
    """Names of the convolutions of VGG16's stages, which are `features` of the backbone."""
    names: dict[str, str] = {}
    index = 0
    for layer, following in zip(layers, [*layers[1:], ""], strict=True):
        names |= both(f"backbone.features.{index}", layer)
        index += 2 if layer[:5] == following[:5] else 3  # a ReLU, and a pool after each stage
    return names


def _resnet(imported: ImportedWeights, *, multi_scale: bool) -> Publication:
    tensors = _normalizations(imported.tensors)
    blocks = tuple(
        sum(bool(re.fullmatch(rf"res{stage}[a-z]\d*_branch2a\.weight", name)) for name in tensors)
        for stage in (2, 3, 4, 5)
    )
    depth = resnet_depth(imported.path, blocks)
    score = next((found for name in tensors if (found := RESNET_SCORE.fullmatch(name))), None)
    names = _norm_layer("conv1", "bn1", "conv1", "bn_conv1")
    for stage, repeats in enumerate(blocks, start=1):
        labels = _block_labels(f"res{stage + 1}", tensors, repeats)
        for block, label in enumerate(labels):
            ours, theirs = f"layer{stage}.{block}", label.removeprefix("res")
            for number, branch in BRANCHES.items():
                names |= _norm_layer(
                    f"{ours}.conv{number}",
                    f"{ours}.bn{number}",
                    f"{label}_branch{branch}",
                    f"bn{theirs}_branch{branch}",
                )
            if block == 0:
                shortcut = f"{ours}.downsample"
                names |= _norm_layer(
                    f"{shortcut}.0", f"{shortcut}.1", f"{label}_branch1", f"bn{theirs}_branch1"
                )
    if score:
        for field in range(FIELDS):
            names |= both(f"head.branches.{field}", f"{score[1]}{field}")
    return Publication(
        publisher="DeepLab's Caffe",
        model="deeplab_v2",
        imported=replace(imported, tensors=tensors),
        num_classes=int(tensors[score[0]].shape[0]) if score else None,
        options={"backbone": f"resnet{depth}", "multi_scale": multi_scale, "align_corners": True},
        normalization=NORMALIZATION,
        backbones=(f"resnet{depth}",),
        names=names,
        head_prefixes=("fc",),
        form="caffe",
    )


def resnet_depth(path: Path, blocks: tuple[int, ...]) -> int:
    """Return the depth of a ResNet by the blocks of its stages; raise InputError for others."""
    if blocks not in DEPTHS:
        raise InputError(
            f"{path}: has {', '.join(map(str, blocks))} blocks in its stages, which is no ResNet "
            "with 50, 101 or 152 layers: is the file complete?"
        )
    return DEPTHS[blocks]


def _block_labels(stage: str, tensors: Mapping[str, Tensor], repeats: int) -> list[str]:
    """Names of a stage's blocks: a, b, c, ..., or a, b1, b2, ... in long stages."""
    numbered = f"{stage}b1_branch2a.weight" in tensors
    more = range(1, repeats)
    return [f"{stage}a", *(f"{stage}b{n}" if numbered else f"{stage}{chr(97 + n)}" for n in more)]


def _normalizations(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merge each BatchNorm layer, which holds sums and their weight, with the Scale after it."""
    result = dict(tensors)
    for key in tensors:
        layer, _, blob = key.rpartition(".")
        if not (layer.startswith("bn") and blob == "blob2"):
            continue
        weight = float(result.pop(key).reshape(-1)[:1].sum())
        factor = 1 / weight if weight else 0.0  # as in Caffe's BatchNorm
        scale = f"scale{layer[2:]}"
        merged = {
            "running_mean": (f"{layer}.weight", factor),
            "running_var": (f"{layer}.bias", factor),
            "weight": (f"{scale}.weight", 1.0),
            "bias": (f"{scale}.bias", 1.0),
        }
        found = {
            f"{layer}.{ours}": result.pop(theirs) * times
            for ours, (theirs, times) in merged.items()
            if theirs in result
        }
        result |= found
    return result


def both(ours: str, theirs: str) -> dict[str, str]:
    """Names of the weight and the bias of a layer: in the file, by ours."""
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}


def _norm_layer(convolution: str, norm: str, theirs: str, their_norm: str) -> dict[str, str]:
    """Names of a convolution of the backbone and of the batch normalization after it."""
    return {
        f"backbone.{convolution}.weight": f"{theirs}.weight",
        **{f"backbone.{norm}.{part}": f"{their_norm}.{part}" for part in NORM},
    }
