"""Replace the `auto` values of a recipe by the plan for the data and this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from pixelwise.data.dataset import SegmentationData
from pixelwise.errors import InputError
from pixelwise.models import count_activations, create_model
from pixelwise.planning.machine import Machine, this_machine
from pixelwise.planning.plan import (
    BATCH_SIZE,
    CROP,
    PLANNED,
    DatasetStats,
    Network,
    PlannedValue,
    make_plan,
    wanted_batch,
)
from pixelwise.recipes.schema import CUSTOM_MODEL, ModelRecipe, Recipe

_LABELS = dict(zip(PLANNED, ("crop", "batch", "epochs", "class weights"), strict=True))
_COMPARED_AT = {"height": 352, "width": 480}
_COMPARED_CLASSES = 11


def plan_run(
    recipe: Recipe,
    data: SegmentationData,
    device: torch.device,
    *,
    processes: int = 1,
    probe: Callable[[tuple[int, int], int], int] | None = None,
) -> tuple[Recipe, dict[str, str]]:
    """Choose the values of PLANNED that are `auto`.

    Args:
        recipe: The recipe. Values that it sets do not change.
        data: The dataset.
        device: Device to train on.
        processes: Number of processes; the batch size is a multiple of it.
        probe: Returns the largest batch that fits into the memory of a device, from the crop and
            the largest batch to try; 0 if it cannot tell. None: the memory is estimated.

    Returns:
        The recipe with the chosen values, and a description of each value of PLANNED.

    Raises:
        InputError: For an unknown network, or a recipe with `minutes`: see `plan_timed_run`.
    """
    if recipe.minutes:
        raise InputError(
            f"minutes = {recipe.minutes:g}: only a single run is fitted into a time: set epochs"
        )
    fixed = {key: value for key in PLANNED if (value := recipe.value(key)) != "auto"}
    dataset_stats = DatasetStats(
        train=len(data.splits["train"]),
        sizes=list(data.sizes.values()),
        pixels=data.pixel_counts["train"].tolist(),
    )

    def plan_with(fixed: Mapping[str, Any]) -> list[PlannedValue]:
        return make_plan(
            dataset_stats,
            find_machine(device),
            fixed=fixed,
            network=estimate_memory(recipe.model),
            processes=processes,
        )

    plan = plan_with(fixed)
    crop = {**fixed, **{planned.key: planned.value for planned in plan}}[CROP]
    if probe is not None and BATCH_SIZE not in fixed and not isinstance(crop, str):
        wanted = wanted_batch(dataset_stats.train, processes)
        fitting = probe(crop, wanted // processes) * processes
        if fitting:
            reason = f"tried on the device, with crops of {crop[0]}x{crop[1]}"
            probed = PlannedValue(BATCH_SIZE, fitting, reason)
            plan = [*plan_with({**fixed, BATCH_SIZE: fitting}), probed]
    recipe = recipe.replace({planned.key: planned.value for planned in plan})
    reasons = {planned.key: planned.reason for planned in plan}
    facts = {
        label: f"{_describe(recipe.value(key))}: {reasons.get(key, 'set by you')}"
        for key, label in _LABELS.items()
    }
    return recipe, facts


def _describe(value: Any) -> str:
    if isinstance(value, tuple):
        is_size = all(isinstance(number, int) for number in value)
        return "x".join(map(str, value)) if is_size else ", ".join(f"{x:g}" for x in value)
    return "uncropped images" if value == "image" else str(value).replace("_", " ")


def find_machine(device: torch.device) -> Machine:
    """Return this machine, with the GPU that `device` names."""
    machine = this_machine()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return replace(machine, gpu=properties.name, gpu_memory=properties.total_memory)
    return machine if device.type == "cpu" else replace(machine, gpu=device.type)


def estimate_memory(model: ModelRecipe) -> Network:
    """Estimate the memory that training a network takes.

    The measured memory of DeepLabV3+ on MobileNetV2 is scaled by the ratio of the activations. A
    user's own module is planned like that network.
    """
    measured = Network()
    if model.name == CUSTOM_MODEL:
        return measured
    ratio = _count_activations(model) / _count_measured_activations()
    return replace(measured, per_pixel=measured.per_pixel * ratio)


@cache
def _count_measured_activations() -> int:
    return _count_activations(ModelRecipe(name="deeplab_v3plus"))


def _count_activations(model: ModelRecipe) -> int:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = create_model(model.name, num_classes=_COMPARED_CLASSES, **model.options)
        return count_activations(network, **_COMPARED_AT)
