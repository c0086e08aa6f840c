"""All that is before a run's first step: data, plan, the network's start, what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.dataset_statistics import usual_crop
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.distributed.process_group import ProcessGroup, check_batch
from pixelwise.errors import InputError
from pixelwise.file_io import check_folder
from pixelwise.models import Segmenter, backbone_name, count_parameters, create_model
from pixelwise.recipes.schema import ModelRecipe, Recipe, settled
from pixelwise.training.apply_plan import plan_run
from pixelwise.training.callbacks import Callback
from pixelwise.training.initial_weights import InitialWeights, load_initial_weights
from pixelwise.training.kernel_selection import Choice, select_kernels
from pixelwise.training.losses import Loss
from pixelwise.training.run_folder import Run, fingerprint, refuse_used
from pixelwise.training.tensorboard import summary_writer
from pixelwise.weights.normalization import Normalization


def prepare(
    root: Path,
    out: Path,
    recipe: Recipe,
    overwrite: bool,
    callback: Callback,
    processes: ProcessGroup,
    *,
    count: int | None = None,
) -> tuple[Run, Segmenter, Loss]:
    """A run, its network and its loss, as they are before the first step. Nothing is written.

    What is measured or depends on the machine is decided by process 0. count: of the processes
    that the run is planned for, None for those that there are. Raises InputError as `train` does.
    """
    count = count or processes.count
    device = processes.fabric.device
    processes.on_rank_zero(lambda: _check_out(out, recipe, overwrite=overwrite))
    data = open_data(root, recipe, callback, processes)
    recipe, planned = processes.on_rank_zero(lambda: _planned(recipe, data, device, count))
    loss_of = processes.on_all_ranks(
        lambda: Loss(recipe.loss, data.pixel_counts["train"], device=device)
    )
    started: list[Segmenter] = []

    def decide() -> _Decided:
        decided, model = _decide(data, recipe, planned, device)
        started.append(model)
        return decided

    decided = processes.on_rank_zero(decide)
    data.pixels = decided.pixels
    # The others get the weights with the first step's preparation.
    model = started[0] if started else make_network(recipe, data)
    torch.set_rng_state(decided.random)
    facts = {**decided.facts, "processes": str(processes)}
    return Run(out, decided.recipe, data, decided.normalization, facts), model, loss_of


def _check_out(out: Path, recipe: Recipe, *, overwrite: bool) -> None:
    refuse_used(out, overwrite=overwrite)
    check_folder(out)
    if recipe.tensorboard:
        summary_writer()  # a fault of it is told now


def _planned(
    recipe: Recipe, data: SegmentationData, device: torch.device, count: int
) -> tuple[Recipe, dict[str, str]]:
    recipe, planned = plan_run(recipe, data, device, processes=count)
    check_batch(settled(recipe.batch_size), count)
    return recipe, planned


@dataclass(frozen=True)
class _Decided:
    """What a run begins with. random: PyTorch's state after its first weights."""

    recipe: Recipe
    pixels: PixelFormat
    normalization: Normalization
    facts: dict[str, str]
    random: Tensor


def _decide(
    data: SegmentationData, recipe: Recipe, planned: dict[str, str], device: torch.device
) -> tuple[_Decided, Segmenter]:
    """Make the network, and measure where the recipe leaves something `auto`."""
    start = load_initial_weights(
        recipe.model,
        data.classes,
        pixels=data.pixels,
        statistics=data.statistics,
        keep_range=recipe.data.value_range != "auto",
    )
    pixels = start.pixels
    crop = recipe.augmentation.crop
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
    recipe = recipe.resolved(
        {
            "memory_format": choice.kernel_config.memory_format,
            "kernels": choice.kernel_config.kernels,
            "data.channels": pixels.channels,
            "data.value_range": pixels.value_range,
        }
    )
    facts = _facts(data, pixels, start, recipe, planned, choice, device)
    random = torch.get_rng_state()
    return _Decided(recipe, pixels, start.normalization, facts, random), start.model


def make_network(recipe: Recipe, data: SegmentationData) -> Segmenter:
    """With any weights."""
    return create_model(
        recipe.model.name,
        num_classes=len(data.classes),
        in_channels=data.pixels.channels,
        **recipe.model.options,
    )


def open_data(
    root: Path, recipe: Recipe, callback: Callback, processes: ProcessGroup
) -> SegmentationData:
    """The data set, of which each process makes sure for itself; all see the same one."""
    data = processes.on_all_ranks(
        lambda: open_dataset(
            root,
            splits=("train", "val"),
            val_fraction=recipe.data.val_fraction,
            seed=recipe.seed,
            cache_bytes=recipe.data.cache_mib << 20,
            progress=callback.checking,
            channels=None if recipe.data.channels == "auto" else recipe.data.channels,
            value_range=None if recipe.data.value_range == "auto" else recipe.data.value_range,
        )
    )
    seen = processes.gather(fingerprint(data))

    def compare() -> None:
        for rank, other in enumerate(seen):
            if other != seen[0]:
                raise InputError(
                    f"{root}: is another data set for process {rank} than for process 0: give all "
                    "machines the same folder"
                )

    processes.on_rank_zero(compare)
    return data


def _facts(
    data: SegmentationData,
    pixels: PixelFormat,
    start: InitialWeights,
    recipe: Recipe,
    planned: dict[str, str],
    choice: Choice,
    device: torch.device,
) -> dict[str, str]:
    counts = ", ".join(f"{split} {len(samples)}" for split, samples in data.splits.items())
    model = recipe.model
    why = "; output stride 16: 8 is finer and slower" if model == ModelRecipe() else ""
    options = {"backbone": backbone_name(model.name, model.options), **model.options}
    shown_options = ", ".join(f"{key} {value}" for key, value in options.items())
    return {
        "data": f"{data.root} ({counts})",
        "images": "" if pixels == RGB else str(pixels),
        "classes": ", ".join(data.classes.names),
        "assumed": "; ".join(data.notes),
        "model": f"{model.name} ({shown_options}), {count_parameters(start.model):,} parameters, "
        f"from {start.origin}{why}",
        **planned,
        "device": _device_name(device),
        "kernels": f"{choice.kernel_config}: {choice.reason}",
        "time": _time(len(data.splits["train"]) * settled(recipe.epochs), choice),
    }


def _time(images: int, choice: Choice) -> str:
    """Of all steps, by the arrangement's measurement; empty where there was none."""
    if choice.seconds is None:
        return ""
    minutes = images * choice.seconds / 60
    shown = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{max(1, round(minutes))} minutes"
    return f"about {shown} by that measurement, and what val takes"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
