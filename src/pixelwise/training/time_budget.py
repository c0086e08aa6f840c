"""Fit a run into a number of minutes: measure networks and crops on this machine."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import torch
from torch import nn

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_statistics import usual_crop
from pixelwise.errors import InputError
from pixelwise.models import backbone_name
from pixelwise.planning.time_budget import SMALL_BATCH, Crop, Workload, fit_minutes, smaller_crops
from pixelwise.recipes.schema import ModelRecipe, Recipe
from pixelwise.training.apply_plan import plan_run
from pixelwise.training.batch_probe import find_batch_size
from pixelwise.training.kernel_selection import select_kernels
from pixelwise.weights.published.fetch import find_imagenet_weights

BACKBONES = ("mobilenet_v2",)
"""The backbones to choose from if the recipe leaves the network open, the best first.

Those that gave the best masks with the default optimizer: see docs/ablation.md.
"""
PROBED_DEVICES = ("cuda",)
"""Devices on which the batch size is tried; where memory can be swapped, an estimate is safer."""


def plan_timed_run(
    recipe: Recipe,
    data: SegmentationData,
    device: torch.device,
    *,
    make_network: Callable[[ModelRecipe], nn.Module],
    processes: int = 1,
) -> tuple[Recipe, dict[str, str]]:
    """Do what `plan_run` does, and fit the run into the minutes of the recipe if it has a limit.

    The epochs follow from measured speeds, and so do the batch size, the crop and the backbone if
    they are open.

    Args:
        recipe: The recipe.
        data: The dataset.
        device: Device to train on.
        make_network: Creates the network of a model section, with any weights.
        processes: Number of processes that share each batch, each on a device of its own.

    Returns:
        The recipe with the chosen values and without a limit, and descriptions as by `plan_run`.

    Raises:
        InputError: If no epoch fits, or for an unknown network.
    """

    planned, facts = plan_run(
        recipe.replace({"minutes": 0.0}),
        data,
        device,
        processes=processes,
        probe=_make_probe(recipe, data, device, make_network),
    )
    if not recipe.minutes:
        return planned, facts

    def measure(backbone: str, crop: Crop) -> float:
        with torch.random.fork_rng(devices=[]):
            network = make_network(_with_backbone(recipe.model, backbone))
        choice = select_kernels(
            network,
            crop=crop,
            channels=data.pixels.channels,
            num_classes=len(data.classes),
            device=device,
            memory_format=recipe.memory_format,
            kernels=recipe.kernels,
            precision=recipe.precision,
            measure=True,
        )
        assert choice.seconds is not None
        return choice.seconds / processes

    val = data.splits["val"]
    pixels = [data.sizes[sample.name][0] * data.sizes[sample.name][1] for sample in val]
    batch, largest = planned.value("batch_size"), planned.augmentation.crop
    sides = usual_crop(list(data.sizes.values())) if isinstance(largest, str) else largest
    is_open = recipe.augmentation.crop == "auto"
    smallest = SMALL_BATCH * processes if recipe.batch_size == "auto" else batch
    plan = fit_minutes(
        recipe.minutes,
        Workload(len(data.splits["train"]), batch, len(val), fmean(pixels), smallest),
        backbones=_backbones(recipe.model),
        crops=smaller_crops(sides) if is_open else [sides],
        measure=measure,
    )
    fitted = {
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "model": _with_backbone(recipe.model, plan.backbone).model_dump(),
        "augmentation.crop": plan.crop if is_open else largest,
    }
    facts |= {"epochs": f"{plan.epochs}: {plan.reason}"}
    if is_open and plan.crop != largest:
        height, width = plan.crop
        facts |= {"crop": f"{height}x{width}: a larger crop would leave too few steps"}
    if plan.batch_size != batch:
        facts |= {"batch": f"{plan.batch_size}: a larger batch would leave too few steps"}
    return planned.replace(fitted), facts


def _make_probe(
    recipe: Recipe,
    data: SegmentationData,
    device: torch.device,
    make_network: Callable[[ModelRecipe], nn.Module],
) -> Callable[[tuple[int, int], int], int] | None:
    """Return the `probe` of `plan_run`, or None for a device on which nothing is tried."""
    if device.type not in PROBED_DEVICES:
        return None

    def probe(crop: tuple[int, int], batch: int) -> int:
        with torch.random.fork_rng(devices=[]):
            network = make_network(recipe.model)
        return find_batch_size(
            network,
            batch=batch,
            crop=crop,
            num_classes=len(data.classes),
            device=device,
            channels=data.pixels.channels,
            precision=recipe.precision,
        )

    return probe


def _backbones(model: ModelRecipe) -> list[str]:
    """Return the backbones to choose from, the best first."""
    if model != ModelRecipe():
        return [backbone_name(model.name, model.options)]
    found = []
    for name in BACKBONES:
        try:
            find_imagenet_weights(name)
        except InputError:
            continue
        found.append(name)
    return found or [backbone_name(model.name, model.options)]


def _with_backbone(model: ModelRecipe, backbone: str) -> ModelRecipe:
    if backbone == backbone_name(model.name, model.options):
        return model
    return model.model_copy(update={"options": {**model.options, "backbone": backbone}})
