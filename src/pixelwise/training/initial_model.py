"""Initial weights of a network: random, published weights of the backbone, or another bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pixelwise.backbones.timm_backbone import is_timm
from pixelwise.data.channel_statistics import ChannelStatistics
from pixelwise.data.classes import Classes, listed
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.data.published.download import Progress
from pixelwise.errors import InputError
from pixelwise.models import Segmenter, backbone_name, create_model
from pixelwise.recipes.schema import ModelRecipe
from pixelwise.training.custom_model import CustomSegmenter
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.bundle_header import is_bundle
from pixelwise.weights.channel_widening import widen
from pixelwise.weights.load_backbone import backbone_form, check_form, load_backbone
from pixelwise.weights.normalization import IMAGENET, Normalization
from pixelwise.weights.published.fetch import describe_weights, provide_weights


@dataclass(frozen=True)
class InitialModel:
    """A network before its first training step.

    Attributes:
        model: The network with its initial weights.
        normalization: The normalization that the weights expect.
        origin: Description of where the weights come from.
        pixels: The format of images that the weights expect.
    """

    model: Segmenter | CustomSegmenter
    normalization: Normalization
    origin: str
    pixels: PixelFormat = RGB


def create_initial_model(
    recipe: ModelRecipe,
    classes: Classes,
    *,
    module: nn.Module | None = None,
    pixels: PixelFormat = RGB,
    statistics: ChannelStatistics | None = None,
    keep_range: bool = False,
    progress: Progress | None = None,
) -> InitialModel:
    """Create a network and load its initial weights.

    Weights for another number of channels are widened: the first three channels keep their weights,
    a new one gets their mean. Images that are not RGB are normalized by their own statistics.

    A bundle may hold another network: FCN-16s starts from FCN-32s with all shared weights and its
    new skip connection at zero (arXiv:1411.4038, section 4.3). If it has other classes, the layers
    whose size depends on them get the weights of the classes that both have, by name, and random
    weights for the others.

    Args:
        recipe: The model section of the recipe.
        classes: The classes.
        module: A user's own module, to use instead of a network of pixelwise.
        pixels: The format of the images.
        statistics: Channel statistics of the images, or None for RGB.
        keep_range: Whether the recipe sets the value range of `pixels`; otherwise a bundle's
            range is used.
        progress: Receives the progress of a download; see `get_weights`.

    Raises:
        InputError: For an unknown network, or weights that are missing or do not fit.
    """
    path: Path | None = None
    if module is None and recipe.weights != "none":
        backbone = backbone_name(recipe.name, recipe.options)
        path = provide_weights(recipe.weights, backbone, progress=progress)
    if module is not None:
        custom = CustomSegmenter(module, len(classes))
        start = InitialModel(custom, IMAGENET, "the weights it was passed with")
    elif path is not None and path.suffix == ".safetensors" and not _is_timm_file(recipe, path):
        bundle = Bundle.load(path)
        if bundle.pixels.dtype == pixels.dtype and not keep_range:  # its value range is used
            bundle_pixels = replace(pixels, value_range=bundle.pixels.value_range)
            statistics = statistics and statistics.rescaled(pixels, bundle_pixels)
            pixels = bundle_pixels
        start = _load_bundle(recipe, classes, bundle, channels=pixels.channels)
    else:
        start = _load_backbone_weights(recipe, classes, path, channels=pixels.channels)
    normalization, origin = start.normalization, start.origin
    channels = normalization.channels
    if statistics is not None and channels != pixels.channels:
        normalization = normalization.widened(statistics.mean, statistics.std)
        if module is None and recipe.weights != "none":
            origin += f", first convolution widened from {channels} to {pixels.channels} channels"
    return replace(start, normalization=normalization, origin=origin, pixels=pixels)


def _is_timm_file(recipe: ModelRecipe, path: Path) -> bool:
    """Whether a .safetensors file holds weights of timm, not a bundle."""
    return is_timm(backbone_name(recipe.name, recipe.options)) and not is_bundle(path)


def create_network(recipe: ModelRecipe, classes: Classes, *, channels: int) -> Segmenter:
    """Create the network of a recipe with random weights."""
    return create_model(
        recipe.name, num_classes=len(classes), in_channels=channels, **recipe.options
    )


def _load_backbone_weights(
    recipe: ModelRecipe, classes: Classes, path: Path | None, *, channels: int
) -> InitialModel:
    """Create a network with random weights, or with published weights in its backbone."""
    model = create_network(recipe, classes, channels=channels)
    if path is None:
        return InitialModel(model, IMAGENET, "random weights")
    backbone = backbone_name(recipe.name, recipe.options)
    normalization = load_backbone(model.backbone, backbone, path)
    return InitialModel(model, normalization, describe_weights(recipe.weights, backbone))


def _load_bundle(
    recipe: ModelRecipe, classes: Classes, bundle: Bundle, *, channels: int
) -> InitialModel:
    """Create a network and load the weights of a bundle that fit it."""
    model = create_network(recipe, classes, channels=channels)
    state = model.state_dict()
    path = bundle.path or Path("bundle")
    same = classes.names == bundle.classes.names
    axes = {} if same else _class_axes(recipe, classes)
    kept = [name for name in classes.names if name in bundle.classes.names]
    loaded: dict[str, Tensor] = {}
    for name, tensor in state.items():
        weight = bundle.weights.get(name)
        if weight is not None and name in axes:
            weight = _merge_classes(tensor, weight, axes[name], classes, bundle.classes)
        if weight is None:
            continue
        inputs = (*weight.shape[1:2], *tensor.shape[1:2])
        if weight.ndim == 4 and inputs == (bundle.pixels.channels, channels):
            weight = widen(weight, channels)
        if weight.shape == tensor.shape:
            loaded[name] = weight
    if not any(name.startswith("backbone.") for name in loaded):
        options = "".join(f" --set model.options.{k}={v}" for k, v in bundle.options.items())
        raise InputError(
            f"{path}: no weights of its backbone fit {recipe.name}: use a bundle of a "
            "network with the same backbone and options; this one was trained with "
            f"--model {bundle.model}{options}"
        )
    backbone = backbone_name(recipe.name, recipe.options)
    check_form(path, backbone_form(bundle), model.backbone, backbone)
    model.load_state_dict(loaded, strict=False)
    new = [name for name in state if name not in loaded]
    unused = [name for name in bundle.weights if name not in loaded]
    origin = f"{path} ({bundle.model}): {len(loaded)} of {len(state)} tensors"
    if kept and not same:
        others = [name for name in classes.names if name not in kept]
        origin += f"; kept classes: {listed(kept, most=5)}"
        origin += f"; new classes: {listed(others, most=5)}" if others else ""
    for names, label in ((new, "new"), (unused, "not used")):
        if names:
            origin += f"; {label}: {', '.join(names[:4])}" + (", ..." if len(names) > 4 else "")
    return InitialModel(model, bundle.normalization, origin)


def _merge_classes(
    ours: Tensor, theirs: Tensor, axes: tuple[int, ...], classes: Classes, old: Classes
) -> Tensor | None:
    """Return `ours` with the weights of the classes that both have; None if the rest differs.

    Args:
        ours: Initial weights for `classes`.
        theirs: Weights for `old`.
        axes: The axes whose size is the number of classes.
        classes: The classes of the new network.
        old: The classes of the bundle.
    """
    expected = [len(old) if axis in axes else size for axis, size in enumerate(ours.shape)]
    pairs = [
        (row, old.names.index(name)) for row, name in enumerate(classes.names) if name in old.names
    ]
    if list(theirs.shape) != expected or not pairs:
        return None
    rows, old_rows = (torch.tensor(side) for side in zip(*pairs, strict=True))
    for axis in axes:
        theirs = theirs.index_select(axis, old_rows)
    merged, *others = axes
    if not others:
        return ours.index_copy(merged, rows, theirs.to(ours.dtype))
    # A kernel from every class to every class, as of learned upsampling.
    part = ours.index_select(merged, rows).index_copy(others[0], rows, theirs.to(ours.dtype))
    return ours.index_copy(merged, rows, part)


def _class_axes(recipe: ModelRecipe, classes: Classes) -> dict[str, tuple[int, ...]]:
    """Return the axes of tensors whose size depends on the number of classes, by name."""
    count = len(classes)
    shapes = []
    for num_classes in (count, count + 1 if count < 255 else count - 1):
        with torch.device("meta"):
            model = create_model(recipe.name, num_classes=num_classes, **recipe.options)
        shapes.append({name: tensor.shape for name, tensor in model.state_dict().items()})
    return {
        name: axes
        for name, shape in shapes[0].items()
        if (axes := tuple(n for n, size in enumerate(shape) if size != shapes[1][name][n]))
    }
