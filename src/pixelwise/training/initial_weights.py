"""What a network starts from: random weights, a backbone's published ones, or another bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.data.channel_statistics import ChannelStatistics
from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.errors import InputError
from pixelwise.models import Segmenter, backbone_name, create_model
from pixelwise.recipes.schema import ModelRecipe
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.channel_widening import widen
from pixelwise.weights.imagenet import find_imagenet_weights
from pixelwise.weights.load_backbone import load_backbone
from pixelwise.weights.normalization import IMAGENET, Normalization


@dataclass(frozen=True)
class InitialWeights:
    """A network before its first step.

    normalization, pixels: what its weights expect. origin: where they are from, in words.
    """

    model: Segmenter
    normalization: Normalization
    origin: str
    pixels: PixelFormat = RGB


def load_initial_weights(
    recipe: ModelRecipe,
    classes: Classes,
    *,
    pixels: PixelFormat = RGB,
    statistics: ChannelStatistics | None = None,
    keep_range: bool = False,
) -> InitialWeights:
    """Build the network and give it its first weights.

    pixels, statistics: of the images. Weights for other channels are widened: the first three
    stay, a new one gets their mean; what is not RGB is normalized by the images' own statistics.
    keep_range: whether the range of values in `pixels` is stated; else it is a bundle's, if the
    start is a bundle for images of the same type.

    A bundle may be of another network: FCN-16s starts from FCN-32s with all that they share, and
    its new skip at zero (arXiv:1411.4038, section 4.3). Where its classes are others, the layers
    whose size depends on them stay as they were.

    Raises InputError for an unknown network, and for weights that are not there or do not fit.
    """
    model = create_model(
        recipe.name, num_classes=len(classes), in_channels=pixels.channels, **recipe.options
    )
    path = Path(recipe.weights)
    if path.suffix == ".safetensors":
        bundle = Bundle.load(path)
        if bundle.pixels.dtype == pixels.dtype and not keep_range:
            known = replace(pixels, value_range=bundle.pixels.value_range)
            statistics = statistics and statistics.rescaled(pixels, known)
            pixels = known
        start = _from_bundle(model, recipe, classes, bundle, channels=pixels.channels)
    elif recipe.weights == "none":
        start = InitialWeights(model, IMAGENET, "random weights")
    else:
        backbone = backbone_name(recipe.name, recipe.options)
        published = recipe.weights == "imagenet"
        source = find_imagenet_weights(backbone) if published else path
        normalization = load_backbone(model.backbone, backbone, source)
        start = InitialWeights(model, normalization, "ImageNet weights" if published else str(path))
    normalization, origin = start.normalization, start.origin
    seen = normalization.channels
    if statistics is not None and seen != pixels.channels:
        normalization = normalization.widened(statistics.mean, statistics.std)
        if recipe.weights != "none":
            origin += f", its first convolution widened from {seen} to {pixels.channels} channels"
    return replace(start, normalization=normalization, origin=origin, pixels=pixels)


def _from_bundle(
    model: Segmenter, recipe: ModelRecipe, classes: Classes, bundle: Bundle, *, channels: int
) -> InitialWeights:
    state = model.state_dict()
    wanted = dict(state)
    have = dict(bundle.weights)
    seen = bundle.pixels.channels
    if seen != channels:
        sizes = [{"in_channels": count, "num_classes": len(classes)} for count in (seen, channels)]
        for name in _sized_by(recipe, *sizes):
            if name in have and have[name].ndim == 4 and have[name].shape[1] == seen:
                have[name] = widen(have[name], channels)
    if classes.names != bundle.classes.names:
        count = len(classes)
        other = count + 1 if count < 255 else count - 1
        for name in _sized_by(recipe, {"num_classes": count}, {"num_classes": other}):
            del wanted[name]
    used: dict[str, Tensor] = {
        name: have[name]
        for name, tensor in wanted.items()
        if name in have and have[name].shape == tensor.shape
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
    return InitialWeights(model, bundle.normalization, origin)


def _sized_by(recipe: ModelRecipe, *sizes: dict[str, int]) -> list[str]:
    """The names of the tensors whose shapes differ between two sizes of the network."""
    shapes = []
    for size in sizes:
        with torch.device("meta"):
            model = create_model(recipe.name, **size, **recipe.options)
        shapes.append({name: tensor.shape for name, tensor in model.state_dict().items()})
    return [name for name, shape in shapes[0].items() if shape != shapes[1][name]]
