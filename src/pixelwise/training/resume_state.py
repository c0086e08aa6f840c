"""Checkpoints: everything that a run needs to resume exactly.

RUN/checkpoints/step-NNNNNNNNN.safetensors holds the weights, their moving average if there is one,
the state of the optimizer and of the schedule, the random states, the position in the epoch, and
the scores so far. The last two checkpoints are kept: if the newest is damaged, the previous one is
used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pixelwise.errors import InputError
from pixelwise.evaluation import ConfusionMatrix, Evaluation, ImageCounts
from pixelwise.file_io import make_folder
from pixelwise.training.custom_model import load_module_weights
from pixelwise.weights.normalization import Normalization
from pixelwise.weights.tensor_file import read_tensor_file, write_tensor_file

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from pixelwise.training.run_folder import Run

FORMAT = 4
KEY = "pixelwise-checkpoint"
CHECKPOINTS_KEPT = 2
ENTRIES = {"normalization", "facts", "progress", "optimizer", "schedule", "averaged", "scaler"}
RESULTS = {"evaluation", "reference"}
"""The attributes of `RunProgress` that are tensors."""
REMEDY = "give a run folder with an undamaged checkpoint, or train again"


@dataclass
class RunProgress:
    """The position of a run and its results so far.

    Attributes:
        epoch: Current epoch, from 1.
        step: Number of steps of this epoch that are done.
        loss_sum: Sum of the losses of these steps.
        seconds: Duration of these steps.
        learning_rate: Learning rate of the backbone at the beginning of the epoch.
        best: Highest val mIoU.
        best_epoch: The epoch that reached it; 0 before the first validation.
        evaluation: The evaluation of that epoch.
        history: The epoch rows of metrics.jsonl.
        reference_epoch: With a patience, the last epoch that improved by more than the paired
            interval; 0 before the first validation.
        reference: The counts of that epoch's validation, or None.
        ended_early: Why the run ended before its last epoch; empty if it did not.
    """

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    learning_rate: float = math.nan
    best: float = -1.0
    best_epoch: int = 0
    evaluation: Evaluation | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    reference_epoch: int = 0
    reference: ImageCounts | None = None
    ended_early: str = ""

    def begin(self, epoch: int) -> None:
        """Move to the beginning of an epoch."""
        self.epoch, self.step, self.loss_sum, self.seconds = epoch, 0, 0.0, 0.0
        self.learning_rate = math.nan

    def record(self, evaluation: Evaluation, *, images: int, val_seconds: float) -> dict[str, Any]:
        """Record the scores of the epoch and return its row for metrics.jsonl.

        Args:
            evaluation: The evaluation on val.
            images: Number of training images.
            val_seconds: Duration of the evaluation.
        """
        scores = evaluation.scores
        if scores.mean_iou > self.best or self.best_epoch == 0:
            self.best = self.best if math.isnan(scores.mean_iou) else scores.mean_iou
            self.best_epoch, self.evaluation = self.epoch, evaluation
        row = {
            "epoch": self.epoch,
            "loss": self.loss_sum / self.step,
            "learning_rate": self.learning_rate,
            "val_mean_iou": _nan_to_none(scores.mean_iou),
            "val_pixel_accuracy": _nan_to_none(scores.pixel_accuracy),
            "seconds": round(self.seconds, 3),
            "val_seconds": round(val_seconds, 3),
            "images_per_second": round(images / max(1e-9, self.seconds), 3),
        }
        self.history.append(row)
        return row


@dataclass(frozen=True)
class TrainingState:
    """The objects that training changes. `ema` is the moving average of the weights, or None."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    fabric: Fabric
    progress: RunProgress
    ema: AveragedModel | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file: tensors, and plain JSON in `header`."""

    path: Path
    tensors: Mapping[str, Tensor]
    header: Mapping[str, Any]

    def is_complete(self) -> bool:
        """Return whether the header has all entries: other versions name them differently."""
        position = {*(entry.name for entry in fields(RunProgress)), "images"} - RESULTS
        return self.header.keys() >= ENTRIES and self.header["progress"].keys() == position

    @property
    def normalization(self) -> Normalization:
        """The normalization of the run."""
        return Normalization.from_json(self.header["normalization"])

    @property
    def facts(self) -> dict[str, str]:
        """The facts of the run when it began."""
        return dict(self.header["facts"])

    def changed_environment(self) -> list[str]:
        """Return a line for each difference from now by which the same steps round differently."""
        return [
            f"{name} {now}, before it was {before}: the same steps round differently"
            for name, now in _environment().items()
            if (before := self.header.get(name, now)) != now
        ]

    def progress(self) -> RunProgress:
        """Return the progress of the run."""
        header = dict(self.header["progress"])
        names = tuple(header.pop("images"))
        rate = header.pop("learning_rate")
        progress = RunProgress(**header, learning_rate=math.nan if rate is None else rate)
        if "confusion" in self.tensors:
            counts = self.tensors["confusion"].numpy()
            matrix = ConfusionMatrix(len(counts))
            matrix.counts += counts
            image_counts = ImageCounts(names, self.tensors["image_counts"].numpy())
            progress.evaluation = Evaluation(matrix, image_counts)
        if "reference" in self.tensors:
            progress.reference = ImageCounts(names, self.tensors["reference"].numpy())
        return progress

    def restore(self, state: TrainingState) -> None:
        """Restore everything but the progress, bit for bit.

        Raises:
            InputError: If the weights do not fit the model, which may be a user's own.
        """
        load_module_weights(state.model, self._tensors_of("model"), origin=self.path)
        groups = self.header["optimizer"]["groups"]
        _restore_optimizer(state.optimizer, self._tensors_of("optimizer"), groups)
        state.schedule.load_state_dict(dict(self.header["schedule"]))
        if state.ema is not None:
            state.ema.module.load_state_dict(self._tensors_of("average"))
            state.ema.n_averaged.fill_(self.header["averaged"])
        scaler = dict(self.header["scaler"])
        if scaler:
            state.fabric.strategy.precision.load_state_dict(scaler)
        torch.set_rng_state(self.tensors["random.cpu"])
        if state.fabric.device.type == "cuda" and "random.cuda" in self.tensors:
            torch.cuda.set_rng_state(self.tensors["random.cuda"], state.fabric.device)

    def _tensors_of(self, name: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(f"{name}."): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(f"{name}.")
        }


class CheckpointWriter:
    """Writes checkpoints to RUN/checkpoints.

    Args:
        run: The run.
        steps: Number of steps per epoch.
    """

    def __init__(self, run: Run, *, steps: int) -> None:
        self.folder = make_folder(run.folder / "checkpoints")
        self.seconds = 60 * run.recipe.checkpoint_minutes
        self.steps = steps
        facts = {key: text for key, text in run.facts.items() if key != "resumed"}
        self.constants = {"normalization": run.normalization.to_json(), "facts": facts}
        self.written_at = time.monotonic()

    def is_due(self) -> bool:
        """Return whether the time for the next checkpoint has come."""
        return time.monotonic() - self.written_at >= self.seconds

    def save(self, state: TrainingState) -> Path:
        """Write a checkpoint, and remove old ones only after that.

        Raises:
            InputError: If it cannot be written. Earlier checkpoints are then intact.
        """
        progress = state.progress
        step = (progress.epoch - 1) * self.steps + progress.step
        path = self.folder / f"step-{step:09d}.safetensors"
        write_state(path, state, self.constants)
        for old in list_checkpoints(self.folder)[:-CHECKPOINTS_KEPT]:
            old.unlink()
        self.written_at = time.monotonic()
        return path


def write_state(path: Path, state: TrainingState, constants: Mapping[str, Any]) -> None:
    """Write a checkpoint. `constants` is the part of its header that no step changes."""
    progress = state.progress
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    optimizer = state.optimizer.state_dict()
    for index, values in optimizer["state"].items():  # only tensors, such as the momentum
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in values.items()}
    averaged = 0
    if state.ema is not None:
        average = state.ema.module.state_dict()
        tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
        averaged = int(state.ema.n_averaged)
    tensors["random.cpu"] = torch.get_rng_state()
    if state.fabric.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(state.fabric.device)
    names: tuple[str, ...] = ()
    if progress.evaluation is not None:
        tensors["confusion"] = torch.from_numpy(np.array(progress.evaluation.matrix.counts))
        tensors["image_counts"] = torch.from_numpy(progress.evaluation.image_counts.counts)
        names = progress.evaluation.image_counts.names
    if progress.reference is not None:  # of the same images in the same order
        tensors["reference"] = torch.tensor(progress.reference.counts)
    header = {
        "format": FORMAT,
        **constants,
        "progress": {
            **{key: value for key, value in vars(progress).items() if key not in RESULTS},
            "learning_rate": _nan_to_none(progress.learning_rate),
            "images": names,
        },
        "optimizer": {"groups": optimizer["param_groups"]},
        "schedule": state.schedule.state_dict(),  # lambdas are rebuilt from the recipe
        "averaged": averaged,
        "scaler": state.fabric.strategy.precision.state_dict(),
        **_environment(),
    }
    write_tensor_file(path, tensors, header, key=KEY)


def _environment() -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), "torch": torch.__version__}


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def load_newest_checkpoint(run: Path) -> tuple[Checkpoint, list[str]]:
    """Load the newest undamaged checkpoint of a run.

    Returns:
        The checkpoint, and one line for each damaged checkpoint that is newer.

    Raises:
        InputError: If there is no undamaged checkpoint, or another version wrote it.
    """
    damaged: list[str] = []
    for path in reversed(list_checkpoints(run / "checkpoints")):
        try:
            tensors, header = read_tensor_file(path, key=KEY, kind="checkpoint", remedy=REMEDY)
        except InputError as error:
            damaged += error.problems
            continue
        checkpoint = Checkpoint(path, tensors, header)
        if header.get("format") != FORMAT or not checkpoint.is_complete():
            raise InputError(
                f"{path}: has checkpoint format {header.get('format')}, written by another version "
                "of pixelwise: finish the run with that version, or train again"
            )
        return checkpoint, damaged
    if damaged:
        raise InputError(*damaged)
    raise InputError(
        f"{run}: holds no checkpoint: it is not a run, or it was stopped before its first "
        "checkpoint: train again"
    )


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    # In the memory format of the weights, as in the run that was stopped: another format would
    # round the same sums differently.
    for weight, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == weight.shape:  # the step counter of AdamW is a single number
                values[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _nan_to_none(value: float) -> float | None:
    return None if math.isnan(value) else value
