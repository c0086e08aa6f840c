"""The training loop.

A run is a function of the recipe and the dataset, bit for bit on one machine: the order of the
batches and each random draw of the augmentation depend on (seed, epoch, index), and everything else
that changes is in the checkpoints. A run that is stopped and resumed ends with the same bundles as
an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
from torch import Tensor, nn

from pixelwise.distributed.context import DistributedContext
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.evaluation import Evaluation, evaluate, merge_shards
from pixelwise.file_io import make_folder, remove_temporary_files
from pixelwise.interrupts import Interrupts, StoppedError
from pixelwise.models import Segmenter
from pixelwise.recipes.schema import ModelRecipe
from pixelwise.training.callbacks import Callback
from pixelwise.training.custom_model import make_predictor
from pixelwise.training.ema import make_ema
from pixelwise.training.kernel_selection import KernelConfig
from pixelwise.training.loading import (
    BatchOrder,
    augmented_train_split,
    count_workers,
    iterate,
    lost_worker,
    make_loader,
)
from pixelwise.training.optimizer import make_optimizer, make_schedule
from pixelwise.training.resume_state import Checkpoint, CheckpointWriter, TrainingState, write_state
from pixelwise.training.run_folder import Metrics
from pixelwise.training.setup import TrainingSetup
from pixelwise.weights.tensor_file import write_tensor_file


class TrainingError(PixelwiseError):
    """A run that cannot continue although its input was valid."""


class TrainingStoppedError(StoppedError):
    """A run that was asked to stop and can be resumed. `exit_code`: 130 (Ctrl-C), 143 (SIGTERM)."""


class Trainer:
    """Train the network of a run.

    Args:
        setup: The run, its network and its loss.
        group: The processes of the run.
        callback: Receives the progress.
        checkpoint: The state to continue from. None: train from the beginning.
    """

    def __init__(
        self,
        setup: TrainingSetup,
        group: DistributedContext,
        *,
        callback: Callback,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.run, self.model, self.loss = setup.run, setup.model, setup.loss
        self.group, self.fabric, self.device = group, group.fabric, group.fabric.device
        self.callback = callback
        self.recipe, self.progress = self.run.recipe, self.run.progress
        self.metrics = Metrics(self.run.folder, enabled=group.is_rank_zero)
        self.interrupts = Interrupts()
        self._make_loader()
        self._make_model_and_optimizer()
        self.state = TrainingState(
            self.model,
            self.optimizer.optimizer,
            self.schedule,
            self.fabric,
            self.progress,
            self.ema,
        )
        if group.is_rank_zero:
            for folder in (self.run.folder, self.run.folder / "checkpoints"):
                remove_temporary_files(folder)
        self.checkpoints = CheckpointWriter(self.run, steps=len(self.batch_sampler))
        if checkpoint is None:
            self._save()
        else:
            checkpoint.restore(self.state)
            self.metrics.resume(self.progress, processes=group.world_size)

    def _make_loader(self) -> None:
        """Create the loader of the training batches."""
        recipe, data = self.recipe, self.run.data
        self.batch_sampler = BatchOrder(
            len(data.splits["train"]),
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            rank=self.group.rank,
            world_size=self.group.world_size,
        )
        self.train_dataset = augmented_train_split(self.run)
        workers = count_workers(recipe.data.workers, self.group)
        self.loader = make_loader(self.train_dataset, self.batch_sampler, workers=workers)

    def _make_model_and_optimizer(self) -> None:
        """Wrap the network with Fabric; create optimizer, schedule and moving average."""
        recipe = self.recipe
        self.kernels = KernelConfig(recipe.memory_format, recipe.kernels)
        self.kernels.apply(self.model)
        self.frozen_norms = _configure_batch_norm(self.model, recipe.model)
        self.network, self.optimizer = self.group.setup(
            self.model, make_optimizer(self.model, recipe)
        )
        self.network.mark_forward_method("training_logits")
        self.accumulate = min(recipe.optimizer.accumulate, len(self.batch_sampler))
        updates = recipe.epochs * math.ceil(len(self.batch_sampler) / self.accumulate)
        self.schedule = make_schedule(self.optimizer, recipe, steps=updates)
        self.ema = make_ema(self.model, max_decay=recipe.optimizer.ema_decay)
        self.validated_model = self.model if self.ema is None else self.ema.module

    def fit(self) -> None:
        """Train to the end of the last epoch.

        Raises:
            TrainingError: If the loss is not finite, or a file of the run cannot be written.
            TrainingStoppedError: On Ctrl-C or SIGTERM, after a checkpoint.
        """
        epochs = self.recipe.epochs
        with self.interrupts, self._explain_lost_workers():
            for epoch in range(self.progress.epoch, epochs + 1):
                self.train_epoch()
                self._finish_epoch()
                if (signal_number := self._stop_signal()) and epoch < epochs:
                    self._stop(signal_number)
        with self._explain_write_errors():
            self.metrics.write("end", {"best_epoch": self.run.best_epoch})

    def train_epoch(self) -> None:
        """Train from the current step to the end of the epoch."""
        progress, steps = self.progress, len(self.batch_sampler)
        self.batch_sampler.begin(progress.epoch, done=progress.step)
        self.network.train()
        for norm in self.frozen_norms:
            norm.eval()
        if math.isnan(progress.learning_rate):
            progress.learning_rate = float(self.schedule.get_last_lr()[0])
        started = time.perf_counter() - progress.seconds
        loss_sum = progress.loss_sum
        for step, (images, labels) in enumerate(iterate(self.loader), start=progress.step + 1):
            loss = self.train_step(step, images, labels)
            loss_sum += loss
            with self._explain_write_errors():
                self.metrics.write_step(epoch=progress.epoch, step=step, loss=loss)
            self.callback.on_step(
                epoch=progress.epoch,
                step=step,
                steps=steps,
                loss=loss,
                images=self.batch_sampler.images(step),
            )
            if self._ends_accumulation(step):
                progress.step, progress.loss_sum = step, loss_sum
                progress.seconds = time.perf_counter() - started
                self._save_or_stop()

    def train_step(self, step: int, images: Tensor, labels: Tensor) -> float:
        """Compute the gradients of a batch; update the weights if it ends an accumulation.

        Args:
            step: The step of the epoch, from 1.
            images: Augmented images of this process (B, C, H, W), in units of 0..255.
            labels: Class indices (B, H, W).

        Returns:
            The loss of the batch, over all processes.
        """
        rng_state = torch.get_rng_state()
        shard = self.batch_sampler.shard(step)
        images = self.kernels.to_memory_format(images[: shard.size].to(self.device))
        labels = labels[: shard.size].to(self.device)
        update = self._ends_accumulation(step)
        if (step - 1) % self.accumulate == 0:
            self.optimizer.zero_grad(set_to_none=True)
        with self.group.training_step(self.network, shard, sync_gradients=update):
            loss = self._compute_loss(images, labels)
            value = loss.item()
            if not math.isfinite(value):
                torch.set_rng_state(rng_state)
                self.group.on_rank_zero(lambda: self._fail_not_finite(step, value))
            self.fabric.backward(loss / self.accumulate)
        if update:
            self.optimizer.step()
            self.schedule.step()
            if self.ema is not None:
                self.ema.update_parameters(self.model)
        return value

    def validate(self) -> Evaluation:
        """Evaluate the network, or the moving average of its weights, on val."""
        data = self.run.data
        predictor = make_predictor(
            self.validated_model,
            data.classes,
            self.run.normalization,
            pixels=data.pixels,
            device=self.device,
        )
        part = evaluate(
            predictor,
            data,
            "val",
            progress=self._on_validation_progress,
            shard=(self.group.rank, self.group.world_size),
        )
        return merge_shards(self.group.gather(part))

    def _compute_loss(self, images: Tensor, labels: Tensor) -> Tensor:
        logits, *auxiliary = self.network.training_logits(
            self.run.normalization(images), upsample=self.loss.upsample
        )
        loss = self.loss(logits, labels)
        for extra_logits in auxiliary:
            loss = loss + self.recipe.loss.auxiliary_weight * self.loss(extra_logits, labels)
        return loss

    def _ends_accumulation(self, step: int) -> bool:
        return step % self.accumulate == 0 or step == len(self.batch_sampler)

    def _on_validation_progress(self, done: int, total: int) -> None:
        if signal_number := self._stop_signal():
            self._save()
            self._stop(signal_number)
        self.callback.on_validation_progress(done, total)

    def _finish_epoch(self) -> None:
        """Validate if it is due, write bundles and metrics, and move on to the next epoch."""
        epoch = self.progress.epoch
        if epoch % self.recipe.validate_every == 0 or epoch == self.recipe.epochs:
            self._record_epoch()
        self.progress.begin(epoch + 1)
        self._save()

    def _record_epoch(self) -> None:
        started = time.perf_counter()
        evaluation = self.validate()
        row = self.progress.record(
            evaluation,
            images=len(self.run.data.splits["train"]),
            val_seconds=time.perf_counter() - started,
        )
        self.group.on_rank_zero(lambda: self._write_epoch(evaluation))
        self.callback.on_epoch_end(row)

    def _write_epoch(self, evaluation: Evaluation) -> None:
        """Write the bundles and the metrics of an epoch; a run killed meanwhile repeats this."""
        run, progress = self.run, self.progress
        with self._explain_write_errors():
            bundle = run.bundle(self.validated_model, evaluation, epoch=progress.epoch)
            bundle.save(run.last)
            if progress.best_epoch == progress.epoch:
                bundle.save(run.best)
                names = run.data.classes.names
                evaluation.image_counts.save(run.val_images, classes=names, split="val")
            self.metrics.write("epoch", run.history[-1])

    def _stop_signal(self) -> int:
        """Return the number of the signal that asks any of the processes to stop, or 0."""
        return self.group.all_reduce_max(self.interrupts.requested or 0)[0]

    def _save_or_stop(self) -> None:
        """Save a checkpoint if one is due; on a signal, save and stop."""
        signal_number, is_due = self.group.all_reduce_max(
            self.interrupts.requested or 0, self.group.is_rank_zero and self.checkpoints.is_due()
        )
        if signal_number or is_due:
            self._save()
        if signal_number:
            self._stop(signal_number)

    def _save(self) -> None:
        """Save a checkpoint."""

        def write() -> None:
            with self._explain_write_errors():
                self.checkpoints.save(self.state)

        self.group.on_rank_zero(write)

    def _stop(self, signal_number: int) -> None:
        """Raise TrainingStoppedError on all ranks; the checkpoint is saved already."""

        def stop() -> None:
            raise TrainingStoppedError(
                f"stopped in epoch {self.progress.epoch} after step {self.progress.step}; "
                f"everything is saved: resume with {self.run.how_to_resume}",
                signal_number=signal_number,
            )

        self.group.on_rank_zero(stop)

    @contextmanager
    def _explain_write_errors(self) -> Iterator[None]:
        """Add how to resume to errors of writing a file, such as a full disk."""
        try:
            yield
        except InputError as error:
            raise TrainingError(
                f"{error.problems[0]}, or free space here: {self.run.how_to_resume} resumes from "
                "the last checkpoint"
            ) from error

    @contextmanager
    def _explain_lost_workers(self) -> Iterator[None]:
        """Report a worker that ended in one line: PyTorch raises its error anywhere in a step."""
        try:
            yield
        except RuntimeError as error:
            reason = lost_worker(error)
            if not reason:
                raise
            text = (
                f"data.workers = {self.loader.num_workers}: {reason}: {self.run.how_to_resume} "
                "resumes from the last checkpoint"
            )
            if self.interrupts.requested:  # the workers received the signal, too
                raise TrainingStoppedError(text, signal_number=self.interrupts.requested) from error
            raise TrainingError(
                f"{text}; with data.workers=0 in its recipe.toml it needs no workers"
            ) from error

    def _fail_not_finite(self, step: int, loss: float) -> NoReturn:
        """Save the whole batch and the state before the step, and raise TrainingError."""
        epoch = self.progress.epoch
        keys = self.batch_sampler.batch(epoch, step)
        names = [self.train_dataset.samples[index].name for _, index in keys]
        pairs = [self.train_dataset[key] for key in keys]
        folder = make_folder(self.run.folder / "not_finite")
        write_tensor_file(
            folder / "batch.safetensors",
            {
                "images": torch.stack([image for image, _ in pairs]),
                "labels": torch.stack([label for _, label in pairs]),
            },
            {"epoch": epoch, "step": step, "loss": str(loss), "names": names},
            key="pixelwise-batch",
        )
        write_state(folder / "state.safetensors", self.state, self.checkpoints.constants)
        rate = self.recipe.optimizer.learning_rate
        raise TrainingError(
            f"the loss is {loss} in epoch {epoch}, step {step}, on {', '.join(names)}: lower "
            f"optimizer.learning_rate (now {rate:g}); {folder} holds the batch and the state "
            f"before it, {self.run.folder} the bundles of earlier epochs"
        )


def _configure_batch_norm(model: nn.Module, recipe: ModelRecipe) -> list[nn.Module]:
    """Set the momentum of batch normalization, and freeze it if the recipe does.

    A user's own module keeps its momentum. Returns the frozen layers: they must stay in evaluation
    mode.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        if isinstance(model, Segmenter):
            norm.momentum = recipe.batch_norm_momentum
        if recipe.freeze_batch_norm:
            norm.requires_grad_(False)
    return list(norms) if recipe.freeze_batch_norm else []
