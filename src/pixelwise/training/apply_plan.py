"""The plan for a run: what the recipe leaves open is decided from the data and the machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from pixelwise.data.dataset import SegmentationData
from pixelwise.models import count_activations, create_model
from pixelwise.planning import (
    BATCH_SIZE,
    CLASS_WEIGHTS,
    CROP,
    EPOCHS,
    PLANNED,
    DatasetStats,
    Machine,
    Network,
    make_plan,
    this_machine,
)
from pixelwise.recipes.schema import ModelRecipe, Recipe

_NAMES = {CROP: "crop", BATCH_SIZE: "batch", EPOCHS: "epochs", CLASS_WEIGHTS: "class weights"}
_COMPARED_AT = {"height": 352, "width": 480}
_COMPARED_CLASSES = 11


def plan_run(
    recipe: Recipe, data: SegmentationData, device: torch.device, *, processes: int = 1
) -> tuple[Recipe, dict[str, str]]:
    """The recipe with no key of PLANNED `auto` any more, and each of them in words.

    processes: that the run is shared out over; the batch is a multiple of them. What the recipe
    states stays. Raises InputError for an unknown network.
    """
    given = {key: value for key in PLANNED if (value := recipe.value(key)) != "auto"}
    dataset_stats = DatasetStats(
        train=len(data.splits["train"]),
        sizes=list(data.sizes.values()),
        pixels=data.pixel_counts["train"].tolist(),
    )
    choices = make_plan(
        dataset_stats,
        machine_of(device),
        given=given,
        network=network_of(recipe.model),
        processes=processes,
    )
    recipe = recipe.resolved({choice.key: choice.value for choice in choices})
    reasons = {choice.key: choice.reason for choice in choices}
    facts = {
        name: f"{_shown(recipe.value(key))}: {reasons.get(key, 'as the recipe says')}"
        for key, name in _NAMES.items()
    }
    return recipe, facts


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        whole = all(isinstance(number, int) for number in value)
        return "x".join(map(str, value)) if whole else ", ".join(f"{x:g}" for x in value)
    return "whole images" if value == "image" else str(value).replace("_", " ")


def machine_of(device: torch.device) -> Machine:
    """This machine, with the GPU that is `device`."""
    machine = this_machine()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return replace(machine, gpu=properties.name, gpu_memory=properties.total_memory)
    return machine if device.type == "cpu" else replace(machine, gpu=device.type)


def network_of(model: ModelRecipe) -> Network:
    """What a network takes in training: the default one's measured memory, by the ratio of what
    their layers put out."""
    measured = Network()
    default = ModelRecipe()
    if (model.name, model.options) == (default.name, default.options):
        return measured
    counts = []
    for one in (model, default):
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            network = create_model(one.name, num_classes=_COMPARED_CLASSES, **one.options)
            counts.append(count_activations(network, **_COMPARED_AT))
    return replace(measured, per_pixel=measured.per_pixel * counts[0] / counts[1])
