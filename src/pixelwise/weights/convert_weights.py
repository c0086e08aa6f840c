"""Convert published weights to bundles.

Supported are FCN by its authors (Caffe), FCN and DeepLabV3 by torchvision, ImageNet classifiers,
and the networks in `publishers`, among them DeepLab by its authors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelwise.data.classes import MAX_CLASSES, Classes
from pixelwise.data.voc_palette import VOC_CLASSES
from pixelwise.errors import InputError
from pixelwise.models import Segmenter, backbone_name, create_model, find_model
from pixelwise.models.fcn import FCNSkipHead
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.fields_of_view import subsample_fields_of_view
from pixelwise.weights.import_weights import ImportedWeights, import_weights
from pixelwise.weights.load_backbone import (
    backbone_prefixes,
    check_form,
    classifier_for,
    classifier_normalization,
    unused_for_backbone,
)
from pixelwise.weights.normalization import Normalization
from pixelwise.weights.publishers import (
    Publication,
    fcn_caffe,
    find_publication,
    torchvision_segmentation,
)
from pixelwise.weights.weight_mapping import WeightMapping, map_weights, source_names


@dataclass(frozen=True)
class Conversion:
    """The result of `convert_weights`.

    Attributes:
        bundle: The bundle, not saved yet.
        notes: What was converted, assumed and left out, as one text per subject.
    """

    bundle: Bundle
    notes: Mapping[str, str]


@dataclass(frozen=True)
class _Match:
    """How a file fills one variant of a network.

    Attributes:
        backbone: Name of the backbone.
        options: Options of the network.
        network: The network on the meta device, without values.
        mapping: The file's tensors under the network's names.
        normalization: Normalization that the weights expect.
        notes: Assumptions to report.
    """

    backbone: str
    options: dict[str, Any]
    network: Segmenter
    mapping: WeightMapping
    normalization: Normalization
    notes: Mapping[str, str] = field(default_factory=dict)


def convert_weights(
    path: Path,
    model: str,
    *,
    classes: Classes | None = None,
    options: Mapping[str, Any] | None = None,
) -> Conversion:
    """Convert published weights to a bundle.

    From an ImageNet classifier only the backbone is used; the head is initialized as for training.

    Args:
        path: A .caffemodel, a .pth, or a TensorFlow checkpoint.
        model: Name of the network; see `list_models`.
        classes: The classes of the file, in order. By default PASCAL VOC's if the file has
            21 classes or none, else generated names.
        options: Options of the network. By default the backbone, and whether the upsampling is
            learned, are inferred from the file.

    Returns:
        The bundle, and notes on what was converted and assumed.

    Raises:
        InputError: If the model or an option is unknown, or a tensor of the file is missing,
            unexpected or has the wrong shape; with one line per problem.

    Example:
        >>> conversion = convert_weights(Path("fcn8s-heavy-pascal.caffemodel"), "fcn8s")
        >>> conversion.bundle.save(Path("fcn8s.safetensors"))
    """
    find_model(model)
    imported = import_weights(path)
    publication = find_publication(imported)
    if imported.is_caffe and publication is None:
        imported = fcn_caffe.select_semantic_head(imported)
    count = _count_classes(imported, publication)
    if imported.is_caffe and publication is None and count and model not in fcn_caffe.HEADS:
        known = ", ".join(fcn_caffe.HEADS)
        raise InputError(f"{path}: FCN's Caffe weights are supported for {known}, not {model}")
    notes = {"classes": f"{len(classes)}, as given"} if classes else {}
    if classes is None:
        classes, notes["classes"] = _assume_classes(count)
    elif count not in {None, len(classes)}:
        raise InputError(
            f"{path}: has {count} classes, but {len(classes)} are named: name all classes in the "
            "order of the file"
        )
    matcher = _Matcher(imported, model, len(classes), count is not None, dict(options or {}))
    match = matcher.match_publication(publication) if publication else matcher.best_match()
    match.mapping.check()
    if count is not None and match.mapping.absent:
        absent = ", ".join(match.mapping.absent[:3])
        raise InputError(f"{path}: lacks {absent}, which {model} needs with these options")
    if imported.is_caffe and publication is None and count in fcn_caffe.OTHER_DATASETS:
        dataset, normalization = fcn_caffe.OTHER_DATASETS[count]
        match = replace(match, normalization=normalization)
        notes["classes"] += f"; the mean color is that of {dataset}, assumed from their number"
    bundle = Bundle(
        model=model,
        options=match.options,
        classes=classes,
        normalization=match.normalization,
        weights=matcher.state_dict(match),
    )
    return Conversion(bundle, {**_describe(match, imported), **notes})


def _count_classes(imported: ImportedWeights, publication: Publication | None) -> int | None:
    """Number of classes of the head in the file; None if there is none, as in classifiers."""
    if publication is not None:
        count = publication.num_classes
    else:
        if imported.is_caffe:
            scores = [f"{layer}.weight" for head in fcn_caffe.HEADS.values() for layer in head]
        else:
            scores = list(torchvision_segmentation.SCORES) if imported.is_segmenter else []
        found = [imported.tensors[name] for name in scores if name in imported.tensors]
        count = int(found[0].shape[0]) if found and found[0].ndim else None
    if count is not None and not 1 <= count <= MAX_CLASSES:
        raise InputError(f"{imported.path}: has {count} classes: must be 1 to {MAX_CLASSES}")
    return count


def _assume_classes(count: int | None) -> tuple[Classes, str]:
    if count is None:
        return VOC_CLASSES, "the 21 of PASCAL VOC, because the file has none"
    if count == len(VOC_CLASSES):
        return VOC_CLASSES, "the 21 of PASCAL VOC, assumed from their number"
    names = [f"class_{number}" for number in range(count)]
    return Classes.make(names, ignore=255), f"{names[0]} to {names[-1]}: the file has no names"


@dataclass(frozen=True)
class _Matcher:
    """Finds the variant of a network that a file fills.

    Attributes:
        imported: The file.
        model: Name of the network.
        num_classes: Number of classes of the network.
        with_head: Whether the file has the weights of a head.
        requested: Options of the network that the caller requires.
    """

    imported: ImportedWeights
    model: str
    num_classes: int
    with_head: bool
    requested: dict[str, Any]

    def match_publication(self, publication: Publication) -> _Match:
        options = {**publication.options, **self.requested}
        backbone = backbone_name(self.model, options)
        publication.check(model=self.model, backbone=backbone)
        network = self._network(options, device="meta")
        wanted = network.state_dict()
        mapping = map_weights(
            wanted,
            publication.imported,
            publication.names_for(n for n in wanted if self.with_head or n.startswith("backbone.")),
            network=self.model,
            unused=() if self.with_head else publication.head_prefixes,
        )
        unused = ", ".join(filter(None, (mapping.unused, publication.not_weights)))
        mapping = replace(mapping, unused=unused)
        check_form(self.imported.path, publication.form, network.backbone, backbone)
        notes = {key: note for key, note in publication.notes.items() if key not in self.requested}
        return _Match(backbone, options, network, mapping, publication.normalization, notes)

    def best_match(self) -> _Match:
        """The match with the fewest mismatches, of all backbones the network is listed with."""
        matches: list[_Match] = []
        errors: list[InputError] = []
        for backbone, options in self._variants():
            try:
                matches.append(self._match(backbone, options))
            except InputError as error:
                errors.append(error)
                continue
            if not matches[-1].mapping.mismatches:
                break
        if not matches:
            raise errors[0]
        return min(matches, key=lambda match: match.mapping.mismatches)

    def _variants(self) -> list[tuple[str, dict[str, Any]]]:
        """Backbones to try, each with its options; requested options override the file's."""
        inferred = torchvision_segmentation.options_of(self.imported, self.model)
        if "backbone" in self.requested:
            return [(str(self.requested["backbone"]), {**inferred, **self.requested})]
        listed = find_model(self.model).variants
        if self.imported.is_caffe:  # backbones that were published for Caffe; else report the first
            listed = tuple(v for v in listed if classifier_for(v.backbone).caffe) or listed[:1]
        variants = [
            (variant.backbone, {**variant.options, **inferred, **self.requested})
            for variant in listed
        ]
        return [each for number, each in enumerate(variants) if each not in variants[:number]]

    def _match(self, backbone: str, options: dict[str, Any]) -> _Match:
        imported, model = self.imported, self.model
        prefixes: dict[str, str] = {}
        unused = unused_for_backbone(imported, backbone)
        notes = {}
        if self.with_head and imported.is_caffe:
            layers = fcn_caffe.HEADS[model]
            prefixes = {f"head.{ours}.": f"{theirs}." for theirs, ours in layers.items()}
            unused = tuple(f"{layer}_geo." for layer in layers)
            learned = fcn_caffe.learned_upsampling(imported, model)
            if learned and "upsampling" not in options:
                options = {**options, "upsampling": "learned"}
                notes["upsampling"] = f"learned, because {', '.join(learned)} is not bilinear"
        elif self.with_head:
            prefixes = dict(torchvision_segmentation.HEADS.get(model, {}))
            unused = () if options.get("auxiliary", True) else ("aux_classifier.",)
        network = self._network(options, device="meta")
        form = getattr(network.backbone, "form", "")
        if form == "caffe" and not imported.is_caffe and "caffe" not in self.requested:
            options = {**options, "caffe": False}
            notes["form"] = "torchvision's ResNet, with the stride in the 3x3 convolution"
            network = self._network(options, device="meta")
        for ours, theirs in backbone_prefixes(network.backbone, backbone, imported).items():
            prefixes[f"backbone.{ours}"] = theirs
        imported = subsample_fields_of_view(imported, network.backbone)
        if imported is not self.imported:
            notes["fields of view"] = "fc6 and fc7, subsampled where the network's are smaller"
        if not imported.is_caffe:
            check_form(imported.path, "torchvision", network.backbone, backbone)
        wanted = network.state_dict()
        built_in = self.with_head and imported.is_caffe
        mapping = map_weights(
            wanted,
            imported,
            source_names(wanted, prefixes),
            network=model,
            unused=unused,
            built_in=fcn_caffe.built_in_tensors(network, model) if built_in else None,
        )
        normalization = classifier_normalization(imported, backbone)
        return _Match(backbone, options, network, mapping, normalization, notes)

    def state_dict(self, match: _Match) -> dict[str, Tensor]:
        """The complete state dict; tensors that the file lacks are initialized as for training."""
        tensors = match.mapping.tensors
        if match.mapping.absent:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # the same file always gives the same bundle
                initial = self._network(match.options).state_dict()
            tensors = {**{name: initial[name] for name in match.mapping.absent}, **tensors}
        return {
            # Step counters of batch normalization may be in neither.
            name: tensors[name] if name in tensors else torch.zeros(like.shape, dtype=like.dtype)
            for name, like in match.network.state_dict().items()
        }

    def _network(self, options: Mapping[str, Any], *, device: str = "cpu") -> Segmenter:
        with torch.device(device):
            return create_model(self.model, num_classes=self.num_classes, **options)


def _describe(match: _Match, imported: ImportedWeights) -> dict[str, str]:
    normalization = match.normalization
    mean, std = (
        ", ".join(f"{255 * value:.5g}" for value in values)
        for values in (normalization.mean, normalization.std)
    )
    order = ", in BGR order" if normalization.order == "bgr" else ""
    notes = {
        "weights": f"{len(match.mapping.tensors)} tensors of {imported.path}",
        "backbone": match.backbone,
        "options": ", ".join(f"{key} {value}" for key, value in match.options.items()),
        "input": f"RGB from 0 to 255, minus ({mean}), divided by ({std}){order}",
        **match.notes,
        "not used": match.mapping.unused,
    }
    if match.mapping.absent:
        values = "zero" if isinstance(match.network.head, FCNSkipHead) else "random"
        notes["head"] = (
            f"untrained, because the file is a classifier: scores are {values} until it is trained"
        )
    return notes
