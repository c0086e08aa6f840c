"""One run: a checked data set and a recipe in, a folder with bundles and metrics out.

What a run does is a function of the recipe and the data alone, bit for bit on one machine: the
order of batches and each random draw of the augmentation follow from (seed, epoch, index), and what
else changes is in the checkpoint. A run that was stopped and resumed ends with the same bundles.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from pixelwise.data.transforms import Augmentation
from pixelwise.distributed.process_group import ProcessGroup, check_batch, join
from pixelwise.distributed.process_rank import ProcessRank, report_once
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.evaluation import Evaluation, evaluate, merge_shards
from pixelwise.file_io import make_folder, remove_temporary_files
from pixelwise.inference import Predictor
from pixelwise.interrupts import Interrupts, StoppedError
from pixelwise.models import Segmenter
from pixelwise.planning import PLANNED
from pixelwise.recipes.schema import Recipe, load_recipe, settled
from pixelwise.training.callbacks import Callback
from pixelwise.training.ema import make_ema
from pixelwise.training.kernel_selection import KernelConfig
from pixelwise.training.loading import (
    AugmentedSplit,
    BatchOrder,
    auto_workers,
    make_loader,
)
from pixelwise.training.losses import Loss
from pixelwise.training.optimizer import make_optimizer, make_schedule
from pixelwise.training.resume_state import Checkpoint, Saver, State, newest, write_state
from pixelwise.training.run_folder import (
    Metrics,
    Run,
    check_same_data,
    clear,
    read_root,
    write_start,
)
from pixelwise.training.setup import make_network, open_data, prepare
from pixelwise.training.tensorboard import recording
from pixelwise.weights.tensor_file import write_tensor_file


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
    callback: Callback | None = None,
) -> Run:
    """Train on the folder `root` and write the run into `out`.

    What the recipe leaves `auto` is decided first. Everything is checked before the first step and
    before `out` is made. Raises InputError for bad data, recipe or folder; TrainingError where the
    loss stops being finite or no checkpoint can be written; TrainingStoppedError by Ctrl-C or
    SIGTERM, after the step and a checkpoint.

    Where torchrun, SLURM or `pixelwise train --devices` has started several processes, all of them
    call this, and share out the batches; process 0 alone writes and calls the listener. The run is
    the same as in one process, but for rounding.
    """
    processes = join(recipe)
    callback = _heard(callback, processes)
    with processes.faults(out):
        run, model, loss_of = prepare(root, out, recipe, overwrite, callback, processes)
        processes.on_rank_zero(lambda: _begin(run, processes))
        callback.planned(run.facts, epochs=settled(run.recipe.epochs))
        with recording(callback, out, wanted=_records(run, processes)) as told:
            _train(run, model, processes, loss_of, callback=told)
    return run


def plan_training(
    root: Path,
    out: Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    callback: Callback | None = None,
    count: int = 1,
) -> Run:
    """The run that `train` would begin with the same arguments in `count` processes, its recipe
    settled.

    Nothing is written. Raises InputError as `train` does before its first step.
    """
    callback = callback or Callback()
    alone = join(recipe, place=ProcessRank())
    run, *_ = prepare(root, out, recipe, overwrite, callback, alone, count=count)
    callback.planned(run.facts, epochs=settled(run.recipe.epochs))
    return run


def _begin(run: Run, processes: ProcessGroup) -> None:
    make_folder(run.folder)
    clear(run.folder)
    write_start(run, processes=processes.count)


def _heard(callback: Callback | None, processes: ProcessGroup) -> Callback:
    return callback if callback is not None and processes.first else Callback()


def _records(run: Run, processes: ProcessGroup) -> bool:
    return run.recipe.tensorboard and processes.first


def resume(folder: Path, *, callback: Callback | None = None) -> Run:
    """Go on with the run in `folder` from its newest whole checkpoint, to its end.

    The recipe, the data and the random states are those that it has had. A damaged checkpoint is
    passed over, with a line in `facts["resumed"]`. Of a finished run nothing is changed.

    Raises what `train` raises, and InputError where the folder holds no checkpoint or the data
    have changed.
    """
    with report_once():
        root, recipe = read_root(folder), load_recipe(folder / "recipe.toml")
        for key in PLANNED:
            if recipe.value(key) == "auto":
                raise InputError(
                    f"{folder / 'recipe.toml'}: {key} is auto, and the run had a number: restore it"
                )
        processes = join(recipe)
    callback = _heard(callback, processes)
    with processes.faults(folder):
        processes.on_all_ranks(lambda: check_batch(settled(recipe.batch_size), processes.count))
        checkpoint, damaged = processes.on_all_ranks(lambda: newest(folder))
        data = open_data(root, recipe, callback, processes)
        processes.on_all_ranks(lambda: check_same_data(folder, data))
        progress = checkpoint.progress()
        origin = f"{checkpoint.path.name}: epoch {progress.epoch}, step {progress.step}"
        facts = {
            **checkpoint.facts,
            "processes": str(processes),
            "resumed": "; ".join([origin, *damaged]),
        }
        run = Run(folder, recipe, data, checkpoint.normalization, facts, progress)
        model = make_network(recipe, data)
        callback.planned(facts, epochs=settled(recipe.epochs))
        loss_of = Loss(recipe.loss, data.pixel_counts["train"], device=processes.fabric.device)
        with recording(callback, folder, wanted=_records(run, processes)) as told:
            _train(run, model, processes, loss_of, callback=told, checkpoint=checkpoint)
    return run


def _train(
    run: Run,
    model: Segmenter,
    processes: ProcessGroup,
    loss_of: Loss,
    *,
    callback: Callback,
    checkpoint: Checkpoint | None = None,
) -> None:
    """From the run's progress to the last epoch's end. `model` has its first weights, or any where
    there is a checkpoint."""
    recipe, data, progress, fabric = run.recipe, run.data, run.progress, processes.fabric
    epochs, batch_size = settled(recipe.epochs), settled(recipe.batch_size)
    order = BatchOrder(
        len(data.splits["train"]),
        batch_size=batch_size,
        seed=recipe.seed,
        rank=processes.rank,
        processes=processes.count,
    )
    workers = recipe.data.workers
    if workers == "auto":
        workers = auto_workers(fabric.device, processes=processes.place.devices)
    images_of = AugmentedSplit(data, "train", _augmentation(run), seed=recipe.seed)
    loader = make_loader(images_of, order, workers=workers)
    kernel_config = _kernel_config(recipe)
    kernel_config.apply(model)
    frozen = _prepare_batch_norm(model, recipe)
    network, optimizer = processes.setup(model, make_optimizer(model, recipe))
    network.mark_forward_method("with_auxiliary")
    accumulate = min(recipe.optimizer.accumulate, len(order))
    updates = -(-len(order) // accumulate)
    schedule = make_schedule(optimizer, recipe, steps=epochs * updates)
    metrics = Metrics(run.folder, writes=processes.first)
    average = make_ema(model, limit=recipe.optimizer.ema_decay)
    kept = model if average is None else average.module
    state = State(model, optimizer.optimizer, schedule, fabric, progress, average)
    if processes.first:
        for folder in (run.folder, run.folder / "checkpoints"):
            remove_temporary_files(folder)
    saver = Saver(
        run.folder,
        minutes=recipe.checkpoint_minutes,
        steps=len(order),
        normalization=run.normalization,
        facts={key: text for key, text in run.facts.items() if key != "resumed"},
    )
    save = partial(_save, saver, state, run, processes)
    stop = partial(_stop, save, run, processes)
    if checkpoint is None:
        save()
    else:
        checkpoint.restore(state)
        metrics.resume(progress, processes=processes.count)

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
                share = order.share(step)
                images, labels = images[: share.size], labels[: share.size]
                images = kernel_config.order(images.to(fabric.device))
                labels = labels.to(fabric.device)
                if (step - 1) % accumulate == 0:
                    optimizer.zero_grad(set_to_none=True)
                updated = step % accumulate == 0 or step == len(order)
                with processes.step(network, share, updates=updated):
                    logits, *auxiliary = network.with_auxiliary(
                        run.normalization(images), upsample=loss_of.whole
                    )
                    loss = loss_of(logits, labels)
                    for extra in auxiliary:
                        loss = loss + recipe.loss.auxiliary_weight * loss_of(extra, labels)
                    value = loss.item()
                    if not math.isfinite(value):
                        torch.set_rng_state(before)
                        keys = order.batch(epoch, step)
                        processes.on_rank_zero(
                            partial(_not_finite, run, saver, state, images_of, keys, value, step)
                        )
                    # The processes' gradients are averaged, and their sum is that of the batch.
                    fabric.backward(loss * processes.count / accumulate)
                if updated:
                    optimizer.step()
                    schedule.step()
                    if average is not None:
                        average.update_parameters(model)
                loss_sum += loss.detach()
                with _writing(run):
                    metrics.step(epoch=epoch, step=step, loss=value)
                callback.step(
                    epoch=epoch, step=step, steps=len(order), loss=value, images=share.images
                )
                if updated:
                    progress.step, progress.loss_sum = step, float(loss_sum)
                    progress.seconds = time.perf_counter() - began
                    signal_number, due = processes.largest(
                        interrupts.requested or 0, processes.first and saver.due()
                    )
                    if signal_number:
                        stop(signal_number)
                    if due:
                        save()

            def validating(done: int, total: int) -> None:
                (signal_number,) = processes.largest(interrupts.requested or 0)
                if signal_number:
                    stop(signal_number)
                callback.validating(done, total)

            started = time.perf_counter()
            predictor = Predictor.of(
                kept,
                data.classes,
                run.normalization,
                pixels=data.pixels,
                device=fabric.device,
            )
            part = evaluate(
                predictor, data, "val", progress=validating, shard=(processes.rank, processes.count)
            )
            evaluation = merge_shards(processes.gather(part))
            row = _score(run, evaluation, val_seconds=time.perf_counter() - started)
            processes.on_rank_zero(partial(_end_epoch, run, kept, evaluation, metrics))
            callback.epoch_ended(row)
            progress.begin(epoch + 1)
            save()
            (signal_number,) = processes.largest(interrupts.requested or 0)
            if signal_number and epoch < epochs:
                stop(signal_number, saved=True)
    with _writing(run):
        metrics.write("end", {"best_epoch": run.best_epoch})


def _score(run: Run, evaluation: Evaluation, *, val_seconds: float) -> dict[str, Any]:
    """Take the epoch's scores into the progress. Returns its row for metrics.jsonl."""
    progress, scores = run.progress, evaluation.scores
    steps, images = progress.step, len(run.data.splits["train"])
    if scores.mean_iou > progress.best or progress.best_epoch == 0:
        progress.best = progress.best if math.isnan(scores.mean_iou) else scores.mean_iou
        progress.best_epoch, progress.evaluation = progress.epoch, evaluation
    row = {
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
    progress.history.append(row)
    return row


def _end_epoch(run: Run, model: nn.Module, evaluation: Evaluation, metrics: Metrics) -> None:
    """Write the bundles and the epoch's row. Done again after a kill, it writes the same."""
    progress = run.progress
    with _writing(run):
        bundle = run.bundle(model, evaluation, epoch=progress.epoch)
        bundle.save(run.last)
        if progress.best_epoch == progress.epoch:
            bundle.save(run.best)
            evaluation.image_counts.save(run.val_images, classes=run.data.classes.names, split="val")
        metrics.write("epoch", run.history[-1])


def _save(saver: Saver, state: State, run: Run, processes: ProcessGroup) -> None:
    def write() -> None:
        with _writing(run):
            saver.save(state)

    processes.on_rank_zero(write)


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


def _stop(
    save: Callable[[], None],
    run: Run,
    processes: ProcessGroup,
    signal_number: int,
    *,
    saved: bool = False,
) -> None:
    if not saved:
        save()

    def end() -> None:
        raise TrainingStoppedError(
            f"stopped in epoch {run.progress.epoch} after step {run.progress.step}, all of it "
            f"kept: go on with `pixelwise train --resume {run.folder}`",
            signal_number=signal_number,
        )

    processes.on_rank_zero(end)


def _not_finite(
    run: Run,
    saver: Saver,
    state: State,
    images_of: AugmentedSplit,
    keys: list[tuple[int, int]],
    value: float,
    step: int,
) -> NoReturn:
    """Keep the batch, all of it, and the state beside the run, and stop."""
    epoch, recipe = run.progress.epoch, run.recipe
    samples = run.data.splits["train"]
    names = [samples[index].name for _, index in keys]
    pairs = [images_of[key] for key in keys]
    folder = make_folder(run.folder / "not_finite")
    write_tensor_file(
        folder / "batch.safetensors",
        {
            "images": torch.stack([image for image, _ in pairs]),
            "labels": torch.stack([label for _, label in pairs]),
        },
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
        fill=run.normalization.fill(),
    )


def _prepare_batch_norm(model: nn.Module, recipe: Recipe) -> list[nn.Module]:
    """Set its momentum. Returns the layers that are frozen, which learn nothing and are kept in
    evaluation mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = recipe.model.batch_norm_momentum
        norm.requires_grad_(not recipe.model.freeze_batch_norm)
    return list(norms) if recipe.model.freeze_batch_norm else []


def _kernel_config(recipe: Recipe) -> KernelConfig:
    """Of a recipe that was settled; one of before there were kernels had the plain ones."""
    assert recipe.memory_format != "auto"
    return KernelConfig(
        recipe.memory_format, "plain" if recipe.kernels == "auto" else recipe.kernels
    )
