"""What a network starts from: random weights, a backbone's published ones, or another bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.checkpoints import (
    IMAGENET,
    Bundle,
    Normalisation,
    find_imagenet_weights,
    load_backbone,
)
from pixelwise.data.classes import Classes
from pixelwise.errors import InputError
from pixelwise.models import Segmenter, backbone_name, create_model
from pixelwise.training.recipe import ModelRecipe


@dataclass(frozen=True)
class Start:
    """A network before its first step.

    normalisation: what its weights expect. origin: where they are from, in words.
    """

    model: Segmenter
    normalisation: Normalisation
    origin: str


def make_start(recipe: ModelRecipe, classes: Classes) -> Start:
    """Build the network and give it its first weights.

    A bundle may be of another network: FCN-16s starts from FCN-32s with all that they share, and
    its new skip at zero (arXiv:1411.4038, section 4.3). Where its classes are others, the layers
    whose size depends on them stay as they were.

    Raises InputError for an unknown network, and for weights that are not there or do not fit.
    """
    model = create_model(recipe.name, num_classes=len(classes), **recipe.options)
    if recipe.pretrained == "none":
        return Start(model, IMAGENET, "random weights")
    backbone = backbone_name(recipe.name, recipe.options)
    if recipe.pretrained == "imagenet":
        normalisation = load_backbone(model.backbone, backbone, find_imagenet_weights(backbone))
        return Start(model, normalisation, "ImageNet weights")
    path = Path(recipe.pretrained)
    if path.suffix == ".safetensors":
        return _from_bundle(model, recipe, classes, Bundle.load(path))
    return Start(model, load_backbone(model.backbone, backbone, path), str(path))


def _from_bundle(model: Segmenter, recipe: ModelRecipe, classes: Classes, bundle: Bundle) -> Start:
    state = model.state_dict()
    wanted = dict(state)
    if classes.names != bundle.classes.names:
        for name in _sized_by_classes(recipe, len(classes)):
            del wanted[name]
    used: dict[str, Tensor] = {
        name: bundle.weights[name]
        for name, tensor in wanted.items()
        if name in bundle.weights and bundle.weights[name].shape == tensor.shape
    }
    if not any(name.startswith("backbone.") for name in used):
        options = "".join(f" --set model.options.{k}={v}" for k, v in bundle.options.items())
        raise InputError(
            f"{bundle.path}: none of its backbone's weights fits {recipe.name}: start from a "
            "bundle of a network with the same backbone and options; this one was made with "
            f"--model {bundle.model}{options}"
        )
    model.load_state_dict(used, strict=False)
    new = [name for name in state if name not in used]
    left = [name for name in bundle.weights if name not in used]
    origin = f"{bundle.path} ({bundle.model}): {len(used)} of {len(state)} tensors"
    for names, what in ((new, "new"), (left, "left out")):
        if names:
            origin += f"; {what}: {', '.join(names[:4])}" + (", ..." if len(names) > 4 else "")
    return Start(model, bundle.normalisation, origin)


def _sized_by_classes(recipe: ModelRecipe, num_classes: int) -> list[str]:
    """The names of the tensors whose shape follows from the number of classes."""
    other = num_classes + 1 if num_classes < 255 else num_classes - 1
    shapes = []
    for count in (num_classes, other):
        with torch.device("meta"):
            model = create_model(recipe.name, num_classes=count, **recipe.options)
        shapes.append({name: tensor.shape for name, tensor in model.state_dict().items()})
    return [name for name, shape in shapes[0].items() if shape != shapes[1][name]]
