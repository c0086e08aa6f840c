"""One run: a checked data set and a recipe in, a folder with bundles and metrics out.

What a run does is a function of the recipe and the data alone, bit for bit on one machine: the
order of batches and each random draw of the augmentation follow from (seed, epoch, index), and what
else changes is in the checkpoint. A run that was stopped and resumed ends with the same bundles.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pixelwise.checkpoints.sealed import write_sealed
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.pixels import RGB
from pixelwise.data.statistics import usual_crop
from pixelwise.data.transforms import Augmentation
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.evaluation import Evaluation, evaluate
from pixelwise.files import check_folder, make_folder, remove_side_files
from pixelwise.inference import Predictor
from pixelwise.interrupts import Interrupts, StoppedError
from pixelwise.models import Segmenter, backbone_name, count_parameters, create_model
from pixelwise.planning import PLANNED
from pixelwise.training.arrangement import Arrangement, Choice, choose_arrangement
from pixelwise.training.checkpoint import Checkpoint, Saver, State, newest, write_state
from pixelwise.training.events import Listener
from pixelwise.training.loading import (
    AugmentedSplit,
    BatchOrder,
    auto_workers,
    make_loader,
)
from pixelwise.training.losses import Loss
from pixelwise.training.optimizer import make_optimizer, make_schedule
from pixelwise.training.plan import plan_run
from pixelwise.training.recipe import ModelRecipe, Recipe, load_recipe, settled
from pixelwise.training.run import (
    Metrics,
    Run,
    check_same_data,
    clear,
    read_root,
    refuse_used,
    write_start,
)
from pixelwise.training.start import Start, make_start
from pixelwise.training.tensorboard import recording, summary_writer


class TrainingError(PixelwiseError):
    """A run that cannot go on, though what was given was usable."""


class TrainingStoppedError(StoppedError):
    """A run that was asked to stop, and can go on. `exit_code`: 130 by Ctrl-C, 143 by SIGTERM."""


def train(
    root: Path,
    out: Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Run:
    """Train on the folder `root` and write the run into `out`.

    What the recipe leaves `auto` is decided first. Everything is checked before the first step and
    before `out` is made. Raises InputError for bad data, recipe or folder; TrainingError where the
    loss stops being finite or no checkpoint can be written; TrainingStoppedError by Ctrl-C or
    SIGTERM, after the step and a checkpoint.
    """
    listener = listener or Listener()
    run, model, fabric, loss_of = _prepare(root, out, recipe, overwrite, listener)
    make_folder(out)
    clear(out)
    write_start(run)
    listener.planned(run.facts, epochs=settled(run.recipe.epochs))
    with recording(listener, out, wanted=run.recipe.tensorboard) as told:
        _train(run, model, fabric, loss_of, listener=told)
    return run


def plan(
    root: Path,
    out: Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Run:
    """The run that `train` would begin with the same arguments, its recipe settled.

    Nothing is written. Raises InputError as `train` does before its first step.
    """
    listener = listener or Listener()
    run, *_ = _prepare(root, out, recipe, overwrite, listener)
    listener.planned(run.facts, epochs=settled(run.recipe.epochs))
    return run


def _prepare(
    root: Path, out: Path, recipe: Recipe, overwrite: bool, listener: Listener
) -> tuple[Run, Segmenter, Fabric, Loss]:
    """All that is before a run's first step, without writing."""
    refuse_used(out, overwrite=overwrite)
    check_folder(out)
    if recipe.tensorboard:
        summary_writer()  # a fault of it is told now
    data = _open(root, recipe, listener)
    fabric = _fabric(recipe)
    recipe, planned = plan_run(recipe, data, fabric.device)
    loss_of = Loss(recipe.loss, data.pixel_counts["train"], device=fabric.device)
    start = make_start(
        recipe.model,
        data.classes,
        pixels=data.pixels,
        statistics=data.statistics,
        keep_range=recipe.data.value_range != "auto",
    )
    data.pixels = start.pixels
    crop = recipe.augmentation.crop
    choice = choose_arrangement(
        start.model,
        crop=usual_crop(list(data.sizes.values())) if isinstance(crop, str) else crop,
        channels=data.pixels.channels,
        num_classes=len(data.classes),
        device=fabric.device,
        layout=recipe.layout,
        kernels=recipe.kernels,
        precision=recipe.precision,
    )
    recipe = recipe.resolved(
        {
            "layout": choice.arrangement.layout,
            "kernels": choice.arrangement.kernels,
            "data.channels": data.pixels.channels,
            "data.value_range": data.pixels.value_range,
        }
    )
    facts = _facts(data, start, recipe, planned, choice, fabric.device)
    return Run(out, recipe, data, start.normalisation, facts), start.model, fabric, loss_of


def resume(folder: Path, *, listener: Listener | None = None) -> Run:
    """Go on with the run in `folder` from its newest whole checkpoint, to its end.

    The recipe, the data and the random states are those that it has had. A damaged checkpoint is
    passed over, with a line in `facts["resumed"]`. Of a finished run nothing is changed.

    Raises what `train` raises, and InputError where the folder holds no checkpoint or the data
    have changed.
    """
    listener = listener or Listener()
    root = read_root(folder)
    recipe = load_recipe(folder / "recipe.toml")
    for key in PLANNED:
        if recipe.value(key) == "auto":
            raise InputError(
                f"{folder / 'recipe.toml'}: {key} is auto, and the run had a number: restore it"
            )
    checkpoint, damaged = newest(folder)
    data = _open(root, recipe, listener)
    check_same_data(folder, data)
    fabric = _fabric(recipe)
    progress = checkpoint.progress()
    origin = f"{checkpoint.path.name}: epoch {progress.epoch}, step {progress.step}"
    facts = {**checkpoint.facts, "resumed": "; ".join([origin, *damaged])}
    run = Run(folder, recipe, data, checkpoint.normalisation, facts, progress)
    model = create_model(
        recipe.model.name,
        num_classes=len(data.classes),
        in_channels=data.pixels.channels,
        **recipe.model.options,
    )
    listener.planned(facts, epochs=settled(recipe.epochs))
    loss_of = Loss(recipe.loss, data.pixel_counts["train"], device=fabric.device)
    with recording(listener, folder, wanted=recipe.tensorboard) as told:
        _train(run, model, fabric, loss_of, listener=told, checkpoint=checkpoint)
    return run


def _open(root: Path, recipe: Recipe, listener: Listener) -> SegmentationData:
    return open_dataset(
        root,
        splits=("train", "val"),
        val_fraction=recipe.data.val_fraction,
        seed=recipe.seed,
        cache_bytes=recipe.data.cache_mib << 20,
        progress=listener.checking,
        channels=None if recipe.data.channels == "auto" else recipe.data.channels,
        value_range=None if recipe.data.value_range == "auto" else recipe.data.value_range,
    )


def _train(
    run: Run,
    model: Segmenter,
    fabric: Fabric,
    loss_of: Loss,
    *,
    listener: Listener,
    checkpoint: Checkpoint | None = None,
) -> None:
    """From the run's progress to the last epoch's end. `model` has its first weights, or any where
    there is a checkpoint."""
    recipe, data, progress = run.recipe, run.data, run.progress
    epochs, batch_size = settled(recipe.epochs), settled(recipe.batch_size)
    order = BatchOrder(len(data.splits["train"]), batch_size=batch_size, seed=recipe.seed)
    workers = recipe.data.workers
    if workers == "auto":
        workers = auto_workers(fabric.device)
    loader = make_loader(
        AugmentedSplit(data, "train", _augmentation(run), seed=recipe.seed), order, workers=workers
    )
    arrangement = _arrangement(recipe)
    arrangement.apply(model)
    frozen = _prepare_batch_norm(model, recipe)
    network, optimizer = fabric.setup(model, make_optimizer(model, recipe))
    network.mark_forward_method("with_auxiliary")
    accumulate = min(recipe.optimizer.accumulate, len(order))
    updates = -(-len(order) // accumulate)
    schedule = make_schedule(optimizer, recipe, steps=epochs * updates)
    metrics = Metrics(run.folder)
    state = State(model, optimizer.optimizer, schedule, fabric, progress)
    saver = Saver(
        run.folder,
        minutes=recipe.checkpoint_minutes,
        steps=len(order),
        normalisation=run.normalisation,
        facts={key: text for key, text in run.facts.items() if key != "resumed"},
    )
    for folder in (run.folder, saver.folder):
        remove_side_files(folder)
    if checkpoint is None:
        _save(saver, state, run)
    else:
        checkpoint.restore(state)
        metrics.resume(progress)

    with Interrupts() as interrupts:
        for epoch in range(progress.epoch, epochs + 1):
            if epoch != progress.epoch:
                progress.begin(epoch)
            order.begin(epoch, done=progress.step)
            network.train()
            for norm in frozen:
                norm.eval()
            if math.isnan(progress.rate):
                progress.rate = float(schedule.get_last_lr()[0])
            began = time.perf_counter() - progress.seconds
            loss_sum = torch.tensor(progress.loss_sum, device=fabric.device)
            for step, (images, labels) in enumerate(loader, start=progress.step + 1):
                before = torch.get_rng_state()
                images = arrangement.order(images.to(fabric.device))
                labels = labels.to(fabric.device)
                logits, *auxiliary = network.with_auxiliary(
                    run.normalisation(images), enlarge=loss_of.whole
                )
                loss = loss_of(logits, labels)
                for extra in auxiliary:
                    loss = loss + recipe.loss.auxiliary_weight * loss_of(extra, labels)
                if (step - 1) % accumulate == 0:
                    optimizer.zero_grad(set_to_none=True)
                value = loss.item()
                if not math.isfinite(value):
                    torch.set_rng_state(before)
                    _not_finite(run, saver, state, order, (images, labels), value, step=step)
                fabric.backward(loss / accumulate)
                updated = step % accumulate == 0 or step == len(order)
                if updated:
                    optimizer.step()
                    schedule.step()
                loss_sum += loss.detach()
                with _writing(run):
                    metrics.step(epoch=epoch, step=step, loss=value)
                listener.step(
                    epoch=epoch, step=step, steps=len(order), loss=value, images=len(images)
                )
                if updated:
                    progress.step, progress.loss_sum = step, float(loss_sum)
                    progress.seconds = time.perf_counter() - began
                    if interrupts.requested is not None:
                        _stop(saver, state, run, interrupts.requested)
                    if saver.due():
                        _save(saver, state, run)

            def validating(done: int, total: int) -> None:
                if interrupts.requested is not None:
                    _stop(saver, state, run, interrupts.requested)
                listener.validating(done, total)

            started = time.perf_counter()
            predictor = Predictor.of(
                model,
                data.classes,
                run.normalisation,
                pixels=data.pixels,
                device=fabric.device,
            )
            evaluation = evaluate(predictor, data, "val", progress=validating)
            with _writing(run):
                _end_epoch(run, model, evaluation, val_seconds=time.perf_counter() - started)
                metrics.write("epoch", run.history[-1])
            listener.epoch_ended(run.history[-1])
            progress.begin(epoch + 1)
            _save(saver, state, run)
            if interrupts.requested is not None and epoch < epochs:
                _stop(saver, state, run, interrupts.requested, saved=True)
    with _writing(run):
        metrics.write("end", {"best_epoch": run.best_epoch})


def _end_epoch(run: Run, model: Segmenter, evaluation: Evaluation, *, val_seconds: float) -> None:
    """Write the bundles and add the epoch's row. Done again after a kill, it writes the same."""
    progress, scores = run.progress, evaluation.scores
    steps, images = progress.step, len(run.data.splits["train"])
    bundle = run.bundle(model, evaluation, epoch=progress.epoch)
    bundle.save(run.last)
    if scores.mean_iou > progress.best or progress.best_epoch == 0:
        progress.best = progress.best if math.isnan(scores.mean_iou) else scores.mean_iou
        progress.best_epoch, progress.evaluation = progress.epoch, evaluation
        bundle.save(run.best)
        evaluation.tallies.save(run.val_images, classes=run.data.classes.names, split="val")
    progress.history.append(
        {
            "epoch": progress.epoch,
            "loss": progress.loss_sum / steps,
            "learning_rate": progress.rate,
            "val_mean_iou": None if math.isnan(scores.mean_iou) else scores.mean_iou,
            "val_pixel_accuracy": (
                None if math.isnan(scores.pixel_accuracy) else scores.pixel_accuracy
            ),
            "seconds": round(progress.seconds, 3),
            "val_seconds": round(val_seconds, 3),
            "images_per_second": round(images / max(1e-9, progress.seconds), 3),
        }
    )


def _save(saver: Saver, state: State, run: Run) -> None:
    with _writing(run):
        saver.save(state)


@contextmanager
def _writing(run: Run) -> Iterator[None]:
    """Says how to go on where a file of the run cannot be written, as on a full disk."""
    try:
        yield
    except InputError as error:
        raise TrainingError(
            f"{error.problems[0]}, or make room here: `pixelwise train --resume {run.folder}` goes "
            "on from the last whole checkpoint"
        ) from error


def _stop(saver: Saver, state: State, run: Run, signal_number: int, *, saved: bool = False) -> None:
    if not saved:
        _save(saver, state, run)
    raise TrainingStoppedError(
        f"stopped in epoch {run.progress.epoch} after step {run.progress.step}, all of it kept: go "
        f"on with `pixelwise train --resume {run.folder}`",
        signal_number=signal_number,
    )


def _not_finite(
    run: Run,
    saver: Saver,
    state: State,
    order: BatchOrder,
    batch: tuple[Tensor, Tensor],
    value: float,
    *,
    step: int,
) -> NoReturn:
    """Keep the batch and the state beside the run, and stop."""
    epoch, recipe = run.progress.epoch, run.recipe
    samples = run.data.splits["train"]
    names = [samples[index].name for _, index in order.batch(epoch, step)]
    folder = make_folder(run.folder / "not_finite")
    images, labels = batch
    write_sealed(
        folder / "batch.safetensors",
        {"images": images.cpu().contiguous(), "labels": labels.cpu()},
        {"epoch": epoch, "step": step, "loss": str(value), "names": names},
        key="pixelwise-batch",
    )
    write_state(folder / "state.safetensors", state, saver.fixed)
    raise TrainingError(
        f"the loss is {value} in epoch {epoch}, step {step}, on {', '.join(names)}: lower "
        f"optimizer.learning_rate (it is {recipe.optimizer.learning_rate:g}); the batch and the "
        f"state before it are in {folder}, the bundles of earlier epochs in {run.folder} are whole"
    )


def _augmentation(run: Run) -> Augmentation:
    chosen = run.recipe.augmentation
    return Augmentation(
        crop=None if isinstance(chosen.crop, str) else chosen.crop,
        scale=chosen.scale,
        flip=chosen.flip,
        brightness=chosen.brightness,
        contrast=chosen.contrast,
        saturation=chosen.saturation,
        fill=run.normalisation.fill(),
    )


def _prepare_batch_norm(model: nn.Module, recipe: Recipe) -> list[nn.Module]:
    """Set its momentum. Returns the layers that are frozen, which learn nothing and are kept in
    evaluation mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = recipe.model.batch_norm_momentum
        norm.requires_grad_(not recipe.model.freeze_batch_norm)
    return list(norms) if recipe.model.freeze_batch_norm else []


def _arrangement(recipe: Recipe) -> Arrangement:
    """Of a recipe that was settled; one of before there were kernels had the plain ones."""
    assert recipe.layout != "auto"
    return Arrangement(recipe.layout, "plain" if recipe.kernels == "auto" else recipe.kernels)


def _fabric(recipe: Recipe) -> Fabric:
    try:
        fabric = Fabric(accelerator=recipe.device, devices=1, precision=recipe.precision)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device = {recipe.device!r}: cannot be used here ({reason})") from error
    fabric.seed_everything(recipe.seed, verbose=False)
    return fabric


def _facts(
    data: SegmentationData,
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
        "pictures": "" if data.pixels == RGB else str(data.pixels),
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
