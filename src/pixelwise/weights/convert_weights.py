"""Published weights as bundles: FCN by its authors (Caffe), FCN and DeepLabV3 by torchvision,
classifiers, and what `publishers` knows.

Names of the authors' layers are those of */net.py in their reference code, where every network has
its score layers and one bilinear kernel for each upsampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pixelwise.backbones import Backbone
from pixelwise.data.classes import MAX_CLASSES, Classes
from pixelwise.data.voc_palette import VOC_CLASSES
from pixelwise.errors import InputError
from pixelwise.layers import LearnedUpsampling, bilinear_kernel
from pixelwise.models import MODELS, Segmenter, create_model
from pixelwise.models.fcn import FCNHead
from pixelwise.models.registry import TORCHVISION, backbone_name
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.imagenet import (
    backbone_prefixes,
    classifier_normalization,
    classifier_on,
    unused_for_backbone,
)
from pixelwise.weights.import_weights import (
    ImportedWeights,
    WeightMapping,
    by_prefix,
    import_weights,
    map_weights,
)
from pixelwise.weights.normalization import CAFFE, Normalization, caffe_normalization
from pixelwise.weights.publishers import Publication, find_publication

# The authors' layers behind fc7, and what they are called in FCNHead.
_COARSE = {"score_fr": "score", "upscore": "upsampling"}
_SIXTEEN = {
    "score_fr": "score",
    "upscore2": "doubling.c4",
    "score_pool4": "skips.c4",
    "upscore16": "upsampling",
}
_EIGHT = {
    "score_fr": "score",
    "upscore2": "doubling.c4",
    "score_pool4": "skips.c4",
    "upscore_pool4": "doubling.c3",
    "score_pool3": "skips.c3",
    "upscore8": "upsampling",
}
CAFFE_HEADS = {
    "fcn32s": _COARSE,
    "fcn16s": _SIXTEEN,
    "fcn8s": _EIGHT,
    "fcn8s_atonce": _EIGHT,
    "fcn_alexnet": _COARSE,
}
# Layers that multiply a map before it is scored, channel by channel; FCNHead has one number.
CAFFE_SCALES = {"fcn8s_atonce": {"scale_pool4": "c4", "scale_pool3": "c3"}}
# torchvision's networks: what stands in its names in front of layers of ours, by model.
TORCHVISION_HEADS = {
    "fcn_resnet_dilated": {"classifier.": "head.", "aux_classifier.": "auxiliary."},
    "deeplab_v3": {
        **{f"classifier.0.convs.{n}.": f"head.context.branches.{n}." for n in range(4)},
        "classifier.0.convs.4.1.": "head.context.branches.4.project.0.",
        "classifier.0.convs.4.2.": "head.context.branches.4.project.1.",
        "classifier.0.project.": "head.context.project.",
        "classifier.1.": "head.refine.0.",
        "classifier.2.": "head.refine.1.",
        "classifier.4.": "head.classify.",
        "aux_classifier.": "auxiliary.",
    },
}
TORCHVISION_SCORES = ("classifier.4.weight", "aux_classifier.4.weight")
# What its networks have otherwise than ours by default, where that is not to be seen in a file.
TORCHVISION_OPTIONS = {"deeplab_v3": {"output_stride": 8, **TORCHVISION}}

# The authors' data sets by their number of classes, with the mean of their images; where it
# is not named here it is that of PASCAL VOC.
OTHER_DATA: dict[int, tuple[str, Normalization]] = {
    33: ("SIFT Flow", caffe_normalization(114.578, 115.294, 108.353)),
    40: ("NYUDv2 in color", caffe_normalization(116.190, 97.203, 92.318)),
    60: ("PASCAL-Context", CAFFE),
}


@dataclass(frozen=True)
class Conversion:
    """A bundle, and what a person should know of how it came about: a text for each subject."""

    bundle: Bundle
    notes: Mapping[str, str]


@dataclass(frozen=True)
class _Plan:
    """How a file fills one variant of a network. `network` has no values yet."""

    backbone: str
    options: dict[str, Any]
    network: Segmenter
    fit: WeightMapping
    normalization: Normalization
    notes: dict[str, str]


def convert_weights(
    path: Path,
    model: str,
    *,
    classes: Classes | None = None,
    options: Mapping[str, Any] | None = None,
) -> Conversion:
    """Make a bundle of `model` from a .caffemodel, a .pth, or a TensorFlow checkpoint.

    Of an ImageNet classifier the backbone is used and the head stays as it is before training.
    classes: by default those of PASCAL VOC where there are 21, or names made up.
    options: of the network. The backbone, and whether its upsampling is learned, follow from the
    file where they are not given.

    Raises InputError, a line for each fault, where anything in the file is missing, left over or
    of another shape, and for unknown models and options.
    """
    if model not in MODELS:
        raise InputError(f"model {model!r} is unknown: there are {', '.join(MODELS)}")
    imported = import_weights(path)
    publication = find_publication(imported)
    if imported.caffe:
        imported = _semantic_only(imported)
        if model not in CAFFE_HEADS:
            known = ", ".join(CAFFE_HEADS)
            raise InputError(f"{path}: Caffe's weights are known for {known}, not for {model}")
    count = _count_classes(imported, publication)
    notes = {"classes": f"{len(classes)}, as given"} if classes else {}
    if classes is None:
        classes, notes["classes"] = _assume_classes(count)
    elif count not in {None, len(classes)}:
        raise InputError(
            f"{path}: has {count} classes, {len(classes)} are named: name each, in the file's order"
        )
    given, whole = dict(options or {}), count is not None
    if publication is not None:
        plan = _plan_published(publication, model, given, num_classes=len(classes), whole=whole)
    else:
        plan = _plan_best(imported, model, given, num_classes=len(classes), whole=whole)
    plan.fit.check()
    normalization = plan.normalization
    if imported.caffe and count in OTHER_DATA:
        data, normalization = OTHER_DATA[count]
        notes["classes"] += f"; the mean color is that of {data}, by their number"
    bundle = Bundle(
        model=model,
        options=plan.options,
        classes=classes,
        normalization=normalization,
        weights=_weights(plan, model, num_classes=len(classes)),
    )
    return Conversion(bundle, {**_describe(plan, imported, normalization), **notes})


def _semantic_only(imported: ImportedWeights) -> ImportedWeights:
    """The authors' networks on SIFT Flow have two heads, *_sem and *_geo: the first is meant."""
    tensors = {name.replace("_sem.", "."): tensor for name, tensor in imported.tensors.items()}
    return replace(imported, tensors=tensors)


def _count_classes(imported: ImportedWeights, publication: Publication | None) -> int | None:
    """How many classes the head in the file has; None where there is none, as in classifiers."""
    if publication is not None:
        count = publication.num_classes
    else:
        if imported.caffe:
            scores = [f"{layer}.weight" for head in CAFFE_HEADS.values() for layer in head]
        else:
            scores = list(TORCHVISION_SCORES) if imported.segments else []
        found = [imported.tensors[name] for name in scores if name in imported.tensors]
        count = int(found[0].shape[0]) if found and found[0].ndim else None
    if count is not None and not 1 <= count <= MAX_CLASSES:
        raise InputError(f"{imported.path}: has {count} classes: allowed are 1 to {MAX_CLASSES}")
    return count


def _assume_classes(count: int | None) -> tuple[Classes, str]:
    if count is None:
        return VOC_CLASSES, "the 21 of PASCAL VOC, since the file has none"
    if count == len(VOC_CLASSES):
        return VOC_CLASSES, "the 21 of PASCAL VOC, by their number"
    names = [f"class_{number}" for number in range(count)]
    return Classes.make(names, ignore=255), f"{names[0]} to {names[-1]}: the file has no names"


def _plan_published(
    publication: Publication,
    model: str,
    given: Mapping[str, Any],
    *,
    num_classes: int,
    whole: bool,
) -> _Plan:
    options = {**publication.options, **given}
    backbone = backbone_name(model, options)
    publication.check(model=model, backbone=backbone)
    with torch.device("meta"):
        network = create_model(model, num_classes=num_classes, **options)
    wanted = network.state_dict()
    fit = map_weights(
        wanted,
        publication.imported,
        publication.places_of(name for name in wanted if whole or name.startswith("backbone.")),
        network=model,
        unused=() if whole else publication.behind,
    )
    unused = ", ".join(part for part in (fit.unused, publication.left_out) if part)
    fit = replace(fit, unused=unused)
    return _Plan(backbone, options, network, fit, publication.normalization, {})


def _plan_best(
    imported: ImportedWeights,
    model: str,
    given: dict[str, Any],
    *,
    num_classes: int,
    whole: bool,
) -> _Plan:
    """The plan for the backbone that fits best, of those that the network is listed with."""
    plans: list[_Plan] = []
    for backbone, options in _variants(model, imported, given):
        plan = _plan(imported, model, backbone, options, num_classes=num_classes, whole=whole)
        plans.append(plan)
        if not plan.fit.faults:
            break
    return min(plans, key=lambda plan: plan.fit.faults)


def _variants(
    model: str, imported: ImportedWeights, options: dict[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """The backbones that a network is listed with, and the options for each: those given before
    those that the file shows."""
    found: dict[str, Any] = {}
    if imported.segments and model in TORCHVISION_HEADS:
        found = dict(TORCHVISION_OPTIONS.get(model, {}))
        found["auxiliary"] = any(name.startswith("aux_classifier.") for name in imported.tensors)
    if "backbone" in options:
        return [(str(options["backbone"]), {**found, **options})]
    variants = [
        (variant.backbone, {**variant.options, **found, **options})
        for variant in MODELS[model].variants
        if classifier_on(variant.backbone).caffe or not imported.caffe
    ]
    return [each for number, each in enumerate(variants) if each not in variants[:number]]


def _plan(
    imported: ImportedWeights,
    model: str,
    backbone: str,
    options: dict[str, Any],
    *,
    num_classes: int,
    whole: bool,
) -> _Plan:
    prefixes: dict[str, str] = {}
    unused = unused_for_backbone(imported, backbone)
    notes = {}
    if whole and imported.caffe:
        layers = CAFFE_HEADS[model]
        prefixes = {f"head.{ours}.": f"{theirs}." for theirs, ours in layers.items()}
        unused = tuple(f"{layer}_geo." for layer in layers)
        learned = [layer for layer in layers if _is_learned(imported, layer)]
        if learned and "upsampling" not in options:
            options = {**options, "upsampling": "learned"}
            notes["upsampling"] = f"learned, since {', '.join(learned)} is not bilinear"
    elif whole:
        heads = TORCHVISION_HEADS.get(model, {})
        prefixes = {ours: theirs for theirs, ours in heads.items()}
        unused = () if options.get("auxiliary", True) else ("aux_classifier.",)
    with torch.device("meta"):
        network = create_model(model, num_classes=num_classes, **options)
    for ours, theirs in backbone_prefixes(network.backbone, backbone, imported).items():
        prefixes[f"backbone.{ours}"] = theirs
    wanted = network.state_dict()
    fit = map_weights(
        wanted,
        imported,
        by_prefix(wanted, prefixes),
        network=model,
        unused=unused,
        built_in=_built_in(network, model) if whole and imported.caffe else None,
    )
    normalization = classifier_normalization(imported, backbone)
    return _Plan(backbone, options, network, fit, normalization, notes)


def _is_learned(imported: ImportedWeights, layer: str) -> bool:
    """Whether a layer upsamples by other than bilinear kernels."""
    weight = imported.tensors.get(f"{layer}.weight")
    if not layer.startswith("upscore") or weight is None or weight.ndim != 4:
        return False
    if weight.shape[0] != weight.shape[1] or weight.shape[2] != weight.shape[3]:
        return False  # of no use either way: its shape will be named
    return not torch.allclose(weight, _bilinear(weight.shape[0], weight.shape[2]), atol=1e-6)


def _bilinear(channels: int, size: int) -> Tensor:
    """(C, C, size, size): each channel upsampled for itself, as a transposed convolution."""
    weight = torch.zeros(channels, channels, size, size)
    weight[range(channels), range(channels)] = bilinear_kernel(size)
    return weight


def _built_in(network: Segmenter, model: str) -> dict[str, Tensor]:
    """What the authors' files hold, and our network computes: frozen kernels, scales of maps."""
    head, channels = cast(FCNHead, network.head), cast(Backbone, network.backbone).channels
    values = {}
    for theirs, ours in CAFFE_HEADS[model].items():
        module: nn.Module = head.get_submodule(ours)
        if theirs.startswith("upscore") and not isinstance(module, LearnedUpsampling):
            size = cast(tuple[int, int, int], module.window)[0]
            values[f"{theirs}.weight"] = _bilinear(head.score.out_channels, size)
    for theirs, ours in CAFFE_SCALES.get(model, {}).items():
        values[f"{theirs}.weight"] = torch.full((channels[ours],), head.scales[ours])
    return values


def _weights(plan: _Plan, model: str, *, num_classes: int) -> dict[str, Tensor]:
    """The whole state dict. What the file does not hold starts as it does in training."""
    start: dict[str, Tensor] = {}
    if plan.fit.absent:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # one file, one bundle
            network = create_model(model, num_classes=num_classes, **plan.options)
        start = {name: network.state_dict()[name] for name in plan.fit.absent}
    filled = {**start, **plan.fit.tensors}
    return {
        name: filled[name] if name in filled else torch.zeros(like.shape, dtype=like.dtype)
        for name, like in plan.network.state_dict().items()  # zeros: counters of batch norm
    }


def _describe(
    plan: _Plan, imported: ImportedWeights, normalization: Normalization
) -> dict[str, str]:
    options = ", ".join(f"{key} {value}" for key, value in plan.options.items())
    mean, std = (
        ", ".join(f"{255 * part:.5g}" for part in parts)
        for parts in (normalization.mean, normalization.std)
    )
    order = ", handed on as BGR" if normalization.order == "bgr" else ""
    notes = {
        "weights": f"{len(plan.fit.tensors)} tensors of {imported.path}",
        "backbone": plan.backbone,
        "options": options,
        "input": f"RGB from 0 to 255, less ({mean}), divided by ({std}){order}",
        **plan.notes,
        "not used": plan.fit.unused,
    }
    if plan.fit.absent:
        values = "zero" if isinstance(plan.network.head, FCNHead) else "random"
        notes["head"] = (
            f"untrained: the file is a classifier's; scores are {values} until it is trained"
        )
    return notes
