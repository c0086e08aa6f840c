"""Load published weights into a backbone: ImageNet classifiers and segmentation networks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from pixelwise.backbones.efficientnet_lite import VARIANTS, EfficientNetLite
from pixelwise.backbones.mobilenet_v3 import MobileNetV3Large
from pixelwise.backbones.resnet import BLOCKS
from pixelwise.backbones.timm_backbone import TimmBackbone
from pixelwise.backbones.vgg import STAGES, AtrousVGG16
from pixelwise.errors import InputError
from pixelwise.models import create_model
from pixelwise.recipes.schema import CUSTOM_MODEL
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.bundle_header import is_bundle
from pixelwise.weights.channel_widening import first_kernel_name, widen
from pixelwise.weights.fields_of_view import field_layers, subsample_fields_of_view
from pixelwise.weights.import_weights import ImportedWeights, import_weights
from pixelwise.weights.normalization import (
    CAFFE,
    EFFICIENTNET_LITE,
    GOOGLENET,
    IMAGENET,
    Normalization,
)
from pixelwise.weights.publishers import find_publication
from pixelwise.weights.timm_weights import load_timm_weights
from pixelwise.weights.weight_mapping import map_weights, source_names


@dataclass(frozen=True)
class Classifier:
    """An ImageNet classifier whose weights can fill a backbone.

    Attributes:
        unused: Prefixes of torchvision's tensors that are not part of the backbone.
        normalization: Normalization that torchvision's weights expect.
        caffe: Caffe's layer names in the order of the backbone's convolutions; empty if no such
            network was published for Caffe.
    """

    unused: tuple[str, ...] = ()
    normalization: Normalization = IMAGENET
    caffe: tuple[str, ...] = ()


CLASSIFIERS: dict[str, Classifier] = {
    "vgg16": Classifier(
        unused=("classifier.6.",),
        caffe=(
            *(
                f"conv{stage}_{number}"
                for stage, (_, repeats) in enumerate(STAGES, start=1)
                for number in range(1, repeats + 1)
            ),
            "fc6",
            "fc7",
        ),
    ),
    "alexnet": Classifier(unused=("classifier.6.",)),
    "caffenet": Classifier(caffe=("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")),
    "googlenet": Classifier(unused=("fc.", "aux1.", "aux2."), normalization=GOOGLENET),
    **{f"resnet{depth}": Classifier(unused=("fc.",)) for depth in BLOCKS},
    **{
        f"efficientnet_lite{n}": Classifier(
            unused=("_conv_head.", "_bn1.", "_fc."), normalization=EFFICIENTNET_LITE
        )
        for n in VARIANTS
    },
    "mobilenet_v2": Classifier(unused=("classifier.", "features.18.")),
    "mobilenet_v3_large": Classifier(unused=("classifier.",)),
}
# Prefixes of the layers after the backbone in Caffe's networks: ImageNet's classes, or FCN's head.
CAFFE_HEAD = ("fc8.", "score", "upscore", "scale_pool")
# The same in segmentation networks of pixelwise and torchvision.
SEGMENTATION_HEAD = ("head.", "auxiliary.", "classifier.", "aux_classifier.")


def load_backbone(backbone: nn.Module, name: str, path: Path) -> Normalization:
    """Load published weights into a backbone.

    If the backbone has another number of image channels than the file, its first convolution is
    adapted.

    Args:
        backbone: The backbone to fill.
        name: Its name in the list of networks.
        path: A classifier of torchvision (.pth) or Caffe (.caffemodel), or a segmentation network
            with this backbone: a bundle, FCN or DeepLabV3 by torchvision, FCN or DeepLab v1 and v2
            by their authors (Caffe), DeepLab by kazuto1011, DeepLabV3+ by its authors (TensorFlow).
            For a backbone of timm: a file of timm's weights, or a bundle.

    Returns:
        The normalization that the weights expect.

    Raises:
        InputError: If a tensor is missing, unexpected or has the wrong shape, or the weights need
            another form of the backbone.
    """
    file_channels, form = 3, "torchvision"
    if isinstance(backbone, TimmBackbone) and not is_bundle(path):
        return load_timm_weights(backbone, path)
    if path.suffix == ".safetensors":
        bundle = Bundle.load(path)
        file_channels = bundle.pixels.channels
        imported = ImportedWeights(path, bundle.weights, "pytorch")
        normalization, form = bundle.normalization, backbone_form(bundle)
    else:
        imported = import_weights(path)
        normalization = classifier_normalization(imported, name)
    wanted = backbone.state_dict()
    first = first_kernel_name(backbone)
    out_channels, channels, *kernel_size = wanted[first].shape
    wanted[first] = wanted[first].new_empty(out_channels, file_channels, *kernel_size)
    publication = find_publication(imported)
    if publication is not None:
        publication.check(backbone=name)
        imported, normalization = publication.imported, publication.normalization
        form = publication.form
        names = publication.names_for(wanted, prefix="backbone.")
        unused = publication.head_prefixes
    else:
        prefixes = backbone_prefixes(backbone, name, imported)
        imported = subsample_fields_of_view(imported, backbone)
        names = source_names(wanted, prefixes)
        unused = unused_for_backbone(imported, name)
    mapping = map_weights(wanted, imported, names, network=name, unused=unused)
    mapping.check()
    if mapping.absent:
        raise InputError(f"{path}: lacks {', '.join(mapping.absent[:3])}, which {name} needs")
    check_form(path, form, backbone, name)
    backbone.load_state_dict(
        {**mapping.tensors, first: widen(mapping.tensors[first], channels)}, strict=False
    )
    return normalization


def check_form(path: Path, form: str, backbone: nn.Module, name: str) -> None:
    """Check that a backbone has the form that weights need.

    Args:
        path: File of the weights, for the error message.
        form: The form that they need; see `Backbone.form`.
        backbone: The backbone.
        name: Its name in the list of networks.

    Raises:
        InputError: If the backbone has another form, in which the weights give other features.
    """
    own = getattr(backbone, "form", "")
    if form and own and form != own:
        option, value = (own, "false") if form == "torchvision" else (form, "true")
        raise InputError(
            f"{path}: has {name} in the form of {form}, but the network has that of {own}, in "
            f"which these weights give other features: use --set model.options.{option}={value}"
        )


def backbone_form(bundle: Bundle) -> str:
    """Return the form of a bundle's backbone; see `Backbone.form`."""
    if bundle.model == CUSTOM_MODEL:
        return ""
    with torch.device("meta"):
        model = create_model(bundle.model, num_classes=len(bundle.classes), **bundle.options)
    return str(getattr(model.backbone, "form", ""))


def classifier_for(backbone: str) -> Classifier:
    """Return the facts about a backbone's classifier; an unknown backbone uses all tensors."""
    return CLASSIFIERS.get(backbone, Classifier())


def backbone_prefixes(backbone: nn.Module, name: str, imported: ImportedWeights) -> dict[str, str]:
    """Return the prefixes of a backbone's tensors, ours to the file's, for `source_names`.

    Raises:
        InputError: If the file is Caffe's and no such network is known for Caffe.
    """
    if isinstance(backbone, EfficientNetLite) and "_conv_stem.weight" in imported.tensors:
        return backbone.published_prefixes()
    if isinstance(backbone, MobileNetV3Large) and "backbone.0.0.weight" in imported.tensors:
        return {"features.": "backbone."}  # torchvision's segmentation networks
    if not imported.is_caffe:
        return {"": "backbone." if imported.is_segmenter else ""}
    layers = classifier_for(name).caffe
    if not layers:
        known = ", ".join(key for key, entry in CLASSIFIERS.items() if entry.caffe)
        raise InputError(f"{imported.path}: Caffe weights are supported for {known}, not {name}")
    convolutions = [key for key, layer in backbone.named_modules() if isinstance(layer, nn.Conv2d)]
    if isinstance(backbone, AtrousVGG16):
        fields = (field_layers(n, caffe=True) for n in range(len(backbone.classifiers)))
        layers = (*layers[:-2], *chain.from_iterable(fields))
    return {f"{ours}.": f"{theirs}." for ours, theirs in zip(convolutions, layers, strict=True)}


def unused_for_backbone(imported: ImportedWeights, name: str) -> tuple[str, ...]:
    """Return the prefixes of the file's tensors that come after the backbone."""
    if imported.is_caffe:
        return CAFFE_HEAD
    return SEGMENTATION_HEAD if imported.is_segmenter else classifier_for(name).unused


def classifier_normalization(imported: ImportedWeights, name: str) -> Normalization:
    """Return the normalization of a published classifier, or of a network on top of one."""
    if imported.is_caffe:
        return CAFFE
    return IMAGENET if imported.is_segmenter else classifier_for(name).normalization
