"""All that is before a run's first step: data, plan, the network's start, what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.checkpoints import Normalisation
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.pixels import RGB, PixelFormat
from pixelwise.data.statistics import usual_crop
from pixelwise.errors import InputError
from pixelwise.files import check_folder
from pixelwise.models import Segmenter, backbone_name, count_parameters, create_model
from pixelwise.training.arrangement import Choice, choose_arrangement
from pixelwise.training.events import Listener
from pixelwise.training.losses import Loss
from pixelwise.training.plan import plan_run
from pixelwise.training.processes import Processes, check_batch
from pixelwise.training.recipe import ModelRecipe, Recipe, settled
from pixelwise.training.run import Run, fingerprint, refuse_used
from pixelwise.training.start import Start, make_start
from pixelwise.training.tensorboard import summary_writer


def prepare(
    root: Path,
    out: Path,
    recipe: Recipe,
    overwrite: bool,
    listener: Listener,
    processes: Processes,
    *,
    count: int | None = None,
) -> tuple[Run, Segmenter, Loss]:
    """A run, its network and its loss, as they are before the first step. Nothing is written.

    What is measured or depends on the machine is decided by process 0. count: of the processes
    that the run is planned for, None for those that there are. Raises InputError as `train` does.
    """
    count = count or processes.count
    device = processes.fabric.device
    processes.first_does(lambda: _check_out(out, recipe, overwrite=overwrite))
    data = open_data(root, recipe, listener, processes)
    recipe, planned = processes.first_does(lambda: _planned(recipe, data, device, count))
    loss_of = processes.all_do(lambda: Loss(recipe.loss, data.pixel_counts["train"], device=device))
    started: list[Segmenter] = []

    def decide() -> _Decided:
        decided, model = _decide(data, recipe, planned, device)
        started.append(model)
        return decided

    decided = processes.first_does(decide)
    data.pixels = decided.pixels
    # The others get the weights with the first step's preparation.
    model = started[0] if started else make_network(recipe, data)
    torch.set_rng_state(decided.random)
    facts = {**decided.facts, "processes": str(processes)}
    return Run(out, decided.recipe, data, decided.normalisation, facts), model, loss_of


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
    normalisation: Normalisation
    facts: dict[str, str]
    random: Tensor


def _decide(
    data: SegmentationData, recipe: Recipe, planned: dict[str, str], device: torch.device
) -> tuple[_Decided, Segmenter]:
    """Make the network, and measure where the recipe leaves something `auto`."""
    start = make_start(
        recipe.model,
        data.classes,
        pixels=data.pixels,
        statistics=data.statistics,
        keep_range=recipe.data.value_range != "auto",
    )
    pixels = start.pixels
    crop = recipe.augmentation.crop
    choice = choose_arrangement(
        start.model,
        crop=usual_crop(list(data.sizes.values())) if isinstance(crop, str) else crop,
        channels=pixels.channels,
        num_classes=len(data.classes),
        device=device,
        layout=recipe.layout,
        kernels=recipe.kernels,
        precision=recipe.precision,
    )
    recipe = recipe.resolved(
        {
            "layout": choice.arrangement.layout,
            "kernels": choice.arrangement.kernels,
            "data.channels": pixels.channels,
            "data.value_range": pixels.value_range,
        }
    )
    facts = _facts(data, pixels, start, recipe, planned, choice, device)
    random = torch.get_rng_state()
    return _Decided(recipe, pixels, start.normalisation, facts, random), start.model


def make_network(recipe: Recipe, data: SegmentationData) -> Segmenter:
    """With any weights."""
    return create_model(
        recipe.model.name,
        num_classes=len(data.classes),
        in_channels=data.pixels.channels,
        **recipe.model.options,
    )


def open_data(
    root: Path, recipe: Recipe, listener: Listener, processes: Processes
) -> SegmentationData:
    """The data set, of which each process makes sure for itself; all see the same one."""
    data = processes.all_do(
        lambda: open_dataset(
            root,
            splits=("train", "val"),
            val_fraction=recipe.data.val_fraction,
            seed=recipe.seed,
            cache_bytes=recipe.data.cache_mib << 20,
            progress=listener.checking,
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

    processes.first_does(compare)
    return data


def _facts(
    data: SegmentationData,
    pixels: PixelFormat,
    start: Start,
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
        "pictures": "" if pixels == RGB else str(pixels),
        "classes": ", ".join(data.classes.names),
        "assumed": "; ".join(data.notes),
        "model": f"{model.name} ({shown_options}), {count_parameters(start.model):,} parameters, "
        f"from {start.origin}{why}",
        **planned,
        "device": _device_name(device),
        "layout": f"{choice.arrangement}: {choice.reason}",
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
