"""The entry points of training: `train`, `resume` and `plan_training`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from torch import nn

from pixelwise.data.dataset import SegmentationData
from pixelwise.distributed.context import DistributedContext, check_batch_size, join_distributed_run
from pixelwise.distributed.environment import DistributedEnv, report_once
from pixelwise.errors import InputError
from pixelwise.folder_lock import FolderLock
from pixelwise.recipes.load_recipe import load_resolved_recipe
from pixelwise.recipes.schema import Recipe
from pixelwise.training.callbacks import Callback, CallbackList
from pixelwise.training.custom_model import check_batch_norm
from pixelwise.training.host_state import isolated
from pixelwise.training.loading import count_workers
from pixelwise.training.losses import SegmentationLoss
from pixelwise.training.resume_state import Checkpoint, list_checkpoints, load_newest_checkpoint
from pixelwise.training.run_folder import (
    Run,
    begin_run,
    check_model,
    check_out,
    check_run_files,
    check_same_data,
    read_metrics,
    read_root,
    write_data_json,
)
from pixelwise.training.setup import (
    Data,
    TrainingSetup,
    describe_data,
    make_network,
    open_data,
    set_up,
)
from pixelwise.training.tensorboard import TensorBoard
from pixelwise.training.trainer import Trainer, TrainingStoppedError
from pixelwise.worker_start import check_workers_start


@isolated
def train(
    data: Data,
    out: Path,
    recipe: Recipe,
    *,
    model: nn.Module | None = None,
    overwrite: bool = False,
    callback: Callback | None = None,
) -> Run:
    """Train a network and write the run to a folder.

    Settings that the recipe leaves `auto` are chosen first. Everything is checked before the first
    step and before `out` is created.

    If torchrun, SLURM or `pixelwise train --devices` has started several processes, all of them
    must call this function. They split each batch; rank 0 writes the files and calls the callback.
    Results match a single-process run up to floating-point rounding.

    For the arguments and the result see `pixelwise.train`; the recipe has all settings here.

    Raises:
        InputError: For a problem with the dataset, the recipe or the folder, such as another
            process that trains there.
        TrainingError: If the loss is not finite, or a file cannot be written.
        TrainingStoppedError: On Ctrl-C or SIGTERM, after the current step and a checkpoint.
    """
    group = join_distributed_run(recipe)
    callback = _on_rank_zero_only(callback, group)
    with group.fail_together(out), _locked(out, group) as lock:
        setup = set_up(data, out, recipe, callback, group, module=model, overwrite=overwrite)

        def begin() -> None:
            lock.take()  # if the folder did not exist before; it may have been filled since
            root = Path(data) if isinstance(data, str | Path) else None
            check_out(out, overwrite=overwrite, data=root)
            begin_run(setup.run, processes=group.world_size)

        group.on_rank_zero(begin)
        return _fit(setup, group, callback)


@isolated
def plan_training(
    data: Data,
    out: Path,
    recipe: Recipe,
    *,
    model: nn.Module | None = None,
    overwrite: bool = False,
    callback: Callback | None = None,
    processes: int = 1,
) -> Run:
    """Return the run that `train` would begin, with its recipe resolved, and write nothing.

    For the other arguments see `train`.

    Args:
        processes: Number of processes to plan for.

    Raises:
        InputError: As `train` does before its first step.
    """
    callback = callback or Callback()
    group = join_distributed_run(recipe, DistributedEnv())
    setup = set_up(
        data, out, recipe, callback, group, module=model, overwrite=overwrite, world_size=processes
    )
    callback.on_plan(setup.run.facts, epochs=setup.run.recipe.epochs)
    return setup.run


@isolated
def resume(
    folder: Path,
    *,
    data: Data | None = None,
    model: nn.Module | None = None,
    callback: Callback | None = None,
) -> Run:
    """Resume a run from its newest undamaged checkpoint and train to its end.

    A damaged checkpoint is skipped, with a line in `facts["resumed"]`. A finished run does not
    change. For the arguments and the result see `pixelwise.resume`.

    Raises:
        InputError: If the folder has no checkpoint or files of others, another process trains
            there, the dataset has changed, or an older version of pixelwise wrote the run.
        TrainingError: As in `train`.
        TrainingStoppedError: As in `train`.
    """
    with report_once():
        source = read_root(folder) if data is None else data
        recipe = load_resolved_recipe(folder / "recipe.toml")
        check_model(folder, recipe, model)
        group = join_distributed_run(recipe)
    callback = _on_rank_zero_only(callback, group)
    with group.fail_together(folder), _locked(folder, group):
        group.on_rank_zero(lambda: check_run_files(folder))
        group.on_all_ranks(lambda: check_batch_size(recipe.batch_size, group.world_size))
        group.on_all_ranks(lambda: check_batch_norm(model, group.world_size))
        group.on_all_ranks(lambda: check_workers_start(count_workers(recipe.data.workers, group)))
        checkpoint, damaged = group.on_all_ranks(lambda: load_newest_checkpoint(folder))
        opened = open_data(source, recipe, callback, group)
        group.on_all_ranks(lambda: check_same_data(folder, opened))
        if data is not None:
            group.on_rank_zero(lambda: write_data_json(folder, opened))
        progress = checkpoint.progress()
        position = f"{checkpoint.path.name}: epoch {progress.epoch}, step {progress.step}"
        if progress.ended_early:
            position = f"the run has ended: {progress.ended_early}"
        elif progress.epoch > recipe.epochs:
            position = "the run is finished"
        resumed = "; ".join([position, *damaged, *checkpoint.changed_environment()])
        facts = {
            **checkpoint.facts,
            "data": describe_data(opened),
            "processes": str(group),
            "resumed": resumed,
        }
        run = Run(folder, recipe, opened, checkpoint.normalization, facts, progress)
        loss = SegmentationLoss(
            recipe.loss, opened.pixel_counts["train"], device=group.fabric.device
        )
        setup = TrainingSetup(run, make_network(recipe.model, opened, model), loss)
        return _fit(setup, group, callback, checkpoint)


def train_or_resume(
    data: Data, folder: Path, recipe: Recipe, *, callback: Callback | None = None
) -> Run:
    """Train, or resume what an earlier call with the same arguments has begun in the folder.

    For arguments and errors see `train`. A run that was killed before its first checkpoint begins
    again. Since the caller finds its runs again, a run that is stopped says to repeat the command.
    """
    try:
        if list_checkpoints(folder / "checkpoints"):
            opened = data if isinstance(data, SegmentationData) else None
            return resume(folder, data=opened, callback=callback)
        return train(data, folder, recipe, overwrite=_was_begun(folder), callback=callback)
    except TrainingStoppedError as error:
        raise TrainingStoppedError(
            f"stopped in {folder}; everything is saved: run the same command to continue",
            signal_number=error.exit_code - 128,
        ) from error


def is_finished(folder: Path) -> bool:
    """Whether a run has ended, here or elsewhere: then it may have come without checkpoints."""
    if not (folder / "last.safetensors").is_file():
        return False
    metrics = read_metrics(folder)
    if metrics or list_checkpoints(folder / "checkpoints"):
        return bool(metrics) and metrics[-1]["event"] == "end"
    return True


def check_continuable(folder: Path) -> None:
    """Raise InputError if `train_or_resume` would refuse what a folder holds."""
    if not is_finished(folder) and not list_checkpoints(folder / "checkpoints"):
        check_out(folder, overwrite=_was_begun(folder))


def _was_begun(folder: Path) -> bool:
    """Return whether a run was killed before its first checkpoint, and can begin again."""
    if any((folder / name).exists() for name in ("best.safetensors", "last.safetensors")):
        return False  # a run writes these after its first checkpoint
    try:
        load_resolved_recipe(folder / "recipe.toml")
    except InputError:
        return False
    return True


@contextmanager
def _locked(folder: Path, group: DistributedContext) -> Iterator[FolderLock]:
    """Lock the folder of a run, if it exists, for the process that writes there."""
    lock = FolderLock(folder, "train")
    try:
        group.on_rank_zero(lock.take_if_exists)
        yield lock
    finally:
        lock.release()


def _on_rank_zero_only(callback: Callback | None, group: DistributedContext) -> Callback:
    return callback if callback is not None and group.is_rank_zero else Callback()


def _fit(
    setup: TrainingSetup,
    group: DistributedContext,
    callback: Callback,
    checkpoint: Checkpoint | None = None,
) -> Run:
    run = setup.run
    callback.on_plan(run.facts, epochs=run.recipe.epochs)
    enabled = run.recipe.tensorboard and group.is_rank_zero
    board = closing(TensorBoard(run.folder / "tensorboard")) if enabled else nullcontext()
    with board as tensorboard:
        callbacks = CallbackList(callback, tensorboard)
        callbacks.on_start(run)
        Trainer(setup, group, callback=callbacks, checkpoint=checkpoint).fit()
    return run
