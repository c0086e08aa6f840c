"""Prepare a run: check the dataset, plan the settings, load initial weights, select kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_statistics import usual_crop
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.data.published.download import describe_progress
from pixelwise.distributed.context import DistributedContext, check_batch_size
from pixelwise.errors import InputError
from pixelwise.file_io import check_folder
from pixelwise.models import Segmenter, backbone_name, count_parameters
from pixelwise.planning.training_data import SPLITS, open_training_data
from pixelwise.progress import duration
from pixelwise.recipes.schema import CUSTOM_MODEL, ModelRecipe, Recipe, ResolvedRecipe
from pixelwise.storage.mirror import origin
from pixelwise.training.callbacks import Callback
from pixelwise.training.class_pixels import check_class_pixels
from pixelwise.training.custom_model import CustomSegmenter, check_batch_norm, check_timm_norm
from pixelwise.training.ending import check_patience
from pixelwise.training.initial_model import InitialModel, create_initial_model, create_network
from pixelwise.training.kernel_selection import KernelChoice, select_kernels
from pixelwise.training.loading import augmented_train_split, count_workers
from pixelwise.training.losses import SegmentationLoss
from pixelwise.training.run_folder import Run, check_out, fingerprint
from pixelwise.training.tensorboard import import_summary_writer
from pixelwise.training.time_budget import plan_timed_run
from pixelwise.weights.normalization import Normalization
from pixelwise.worker_start import check_workers_start

Data = str | Path | SegmentationData
"""A folder of images and masks, or a dataset that was opened or made by `from_datasets`."""

_CUSTOM_MODEL = {"model.name": CUSTOM_MODEL, "model.options": {}, "model.weights": "none"}


@dataclass(frozen=True)
class TrainingSetup:
    """Everything that a `Trainer` needs."""

    run: Run
    model: Segmenter | CustomSegmenter
    loss: SegmentationLoss


@dataclass(frozen=True)
class _Decisions:
    """Values that rank 0 decides and broadcasts.

    `rng_state` is PyTorch's random state after weight initialization.
    """

    recipe: ResolvedRecipe
    pixels: PixelFormat
    normalization: Normalization
    facts: dict[str, str]
    rng_state: Tensor


def set_up(
    source: Data,
    out: Path,
    recipe: Recipe,
    callback: Callback,
    group: DistributedContext,
    *,
    module: nn.Module | None,
    overwrite: bool,
    world_size: int | None = None,
) -> TrainingSetup:
    """Prepare a run without writing anything. For arguments and errors see `train`.

    Rank 0 decides what is measured or depends on the machine. `group` prepares the run;
    `world_size` is the number of processes that it will train on, by default those in `group`.
    """
    world_size = world_size or group.world_size
    device = group.fabric.device
    if module is not None:
        recipe = recipe.replace(_CUSTOM_MODEL)
        group.on_all_ranks(lambda: check_batch_norm(module, world_size))
    group.on_rank_zero(lambda: _check_output(out, recipe, source, overwrite=overwrite))
    group.on_all_ranks(lambda: check_workers_start(count_workers(recipe.data.workers, group)))
    data = open_data(source, recipe, callback, group)

    group.on_rank_zero(lambda: check_class_pixels(data))
    group.on_rank_zero(lambda: check_patience(recipe, data))

    def plan() -> tuple[Recipe, dict[str, str]]:
        planned = plan_timed_run(
            recipe,
            data,
            device,
            make_network=lambda chosen: make_network(chosen, data, module),
            processes=world_size,
        )
        check_batch_size(planned[0].value("batch_size"), world_size)
        return planned

    planned_recipe, facts = group.on_rank_zero(plan)
    start = group.on_rank_zero_without_broadcast(
        lambda: create_initial_model(
            planned_recipe.model,
            data.classes,
            module=module,
            pixels=data.pixels,
            statistics=data.statistics,
            keep_range=recipe.data.value_range != "auto",
            progress=lambda activity, done, total: callback.on_status(
                describe_progress(activity, done, total)
            ),
        )
    )
    decisions = group.on_rank_zero(
        lambda: _decide(start, data, planned_recipe, facts, device, callback)
    )
    data = replace(data, pixels=decisions.pixels)
    # The other ranks receive the weights when Fabric wraps the model.
    model = make_network(planned_recipe.model, data, module) if start is None else start.model
    group.on_all_ranks(lambda: check_timm_norm(planned_recipe.model, model, world_size))
    torch.set_rng_state(decisions.rng_state)
    loss = group.on_all_ranks(
        lambda: SegmentationLoss(decisions.recipe.loss, data.pixel_counts["train"], device=device)
    )
    facts = {**decisions.facts, "processes": str(group)}
    run = Run(out, decisions.recipe, data, decisions.normalization, facts)
    group.on_all_ranks(lambda: augmented_train_split(run))  # raises if it does not fit the images
    return TrainingSetup(run, model, loss)


def _check_output(out: Path, recipe: Recipe, source: Data, *, overwrite: bool) -> None:
    data = source.root if isinstance(source, SegmentationData) else Path(source)
    check_out(out, overwrite=overwrite, data=data)
    check_folder(out)
    if recipe.tensorboard:
        import_summary_writer()  # raises now if it is missing


def _decide(
    start: InitialModel | None,
    data: SegmentationData,
    recipe: Recipe,
    planned_facts: dict[str, str],
    device: torch.device,
    callback: Callback,
) -> _Decisions:
    """Select the kernels and resolve the recipe."""
    assert start is not None  # on rank 0
    rng_state = torch.get_rng_state()
    pixels, crop = start.pixels, recipe.augmentation.crop
    callback.on_status("timing the training kernels")
    choice = select_kernels(
        start.model,
        crop=usual_crop(list(data.sizes.values())) if isinstance(crop, str) else crop,
        channels=pixels.channels,
        num_classes=len(data.classes),
        device=device,
        memory_format=recipe.memory_format,
        kernels=recipe.kernels,
        precision=recipe.precision,
    )
    resolved = recipe.resolve(
        {
            "memory_format": choice.kernel_config.memory_format,
            "kernels": choice.kernel_config.kernels,
            "data.channels": pixels.channels,
            "data.value_range": pixels.value_range,
        }
    )
    facts = {
        "data": describe_data(data),
        "images": "" if pixels == RGB else str(pixels),
        "classes": ", ".join(data.classes.names),
        "absent": check_class_pixels(data),
        "assumed": "; ".join(data.notes),
        "model": _describe_model(start, resolved.model),
        **planned_facts,
        "device": _describe_device(device),
        "kernels": f"{choice.kernel_config}: {choice.reason}",
        "time": _estimate_time(len(data.splits["train"]) * resolved.epochs, choice),
    }
    return _Decisions(resolved, pixels, start.normalization, facts, rng_state)


def make_network(
    recipe: ModelRecipe, data: SegmentationData, module: nn.Module | None = None
) -> Segmenter | CustomSegmenter:
    """Create the network of a recipe with random weights, or wrap a user's own module."""
    if module is not None:
        return CustomSegmenter(module, len(data.classes))
    return create_network(recipe, data.classes, channels=data.pixels.channels)


def open_data(
    source: Data, recipe: Recipe, callback: Callback, group: DistributedContext
) -> SegmentationData:
    """Open the dataset on all ranks and check that it is the same on all.

    Raises:
        InputError: If the dataset has a problem, or differs between the processes.
    """
    data = group.on_all_ranks(lambda: _open_data(source, recipe, callback))
    fingerprints = group.gather(fingerprint(data))

    def compare() -> None:
        for rank, other in enumerate(fingerprints):
            if other != fingerprints[0]:
                raise InputError(
                    f"{data.root}: process {rank} has a different dataset from process 0: give "
                    "all machines the same folder"
                )

    group.on_rank_zero(compare)
    return data


def _open_data(source: Data, recipe: Recipe, callback: Callback) -> SegmentationData:
    if not isinstance(source, SegmentationData):
        return open_training_data(source, recipe, callback.on_dataset_progress)
    for split in SPLITS:
        if split not in source.splits:
            raise InputError(f"{source.root}: the dataset has no {split} split: training needs it")
    return replace(source, splits={split: source.splits[split] for split in SPLITS})


def describe_data(data: SegmentationData) -> str:
    """Return the folder of a dataset and the number of images by split."""
    counts = ", ".join(f"{split} {len(samples)}" for split, samples in data.splits.items())
    return f"{origin(data.root) or data.root} ({counts})"


def _describe_model(start: InitialModel, model: ModelRecipe) -> str:
    size = f"{count_parameters(start.model):,} parameters, from {start.origin}"
    if isinstance(start.model, CustomSegmenter):
        return f"{type(start.model.module).__name__} (your own module), {size}"
    options = {"backbone": backbone_name(model.name, model.options), **model.options}
    described = ", ".join(f"{key} {value}" for key, value in options.items())
    hint = "; output stride 16: 8 is finer and slower" if model == ModelRecipe() else ""
    return f"{model.name} ({described}), {size}{hint}"


def _estimate_time(images: int, choice: KernelChoice) -> str:
    """Estimate the time of all training steps; empty if none was measured."""
    if choice.seconds is None:
        return ""
    return f"about {duration(images * choice.seconds)} by this measurement, plus validation"


def _describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"
