"""Checkpoints: all that a run needs to go on as if it had never stopped.

RUN/checkpoints/step-NNNNNNNNN.safetensors holds the weights, their moving average where there is
one, what the optimizer keeps for each of them, the schedule, the random states, the place in the
epoch, and the scores so far. The last two are kept: where the newest is damaged, the one before it
is used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pixelwise.errors import InputError
from pixelwise.evaluation import ConfusionMatrix, Evaluation, ImageCounts
from pixelwise.file_io import make_folder
from pixelwise.weights.normalization import Normalization
from pixelwise.weights.tensor_file import read_tensor_file, write_tensor_file

FORMAT = 2
KEY = "pixelwise-checkpoint"
KEPT = 2
REMEDY = "give the folder of a run whose checkpoints are whole, or train anew"


@dataclass
class Progress:
    """Where a run is, and what it has so far.

    epoch: from 1; of its batches `step` are done. loss_sum, seconds: over those. rate: the
    backbone's learning rate when the epoch began. best: the highest val mIoU, of best_epoch, whose
    scores are `evaluation`. history: the epoch rows of metrics.jsonl.
    """

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    rate: float = math.nan
    best: float = -1.0
    best_epoch: int = 0
    evaluation: Evaluation | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, epoch: int) -> None:
        """Before the first batch of an epoch."""
        self.epoch, self.step, self.loss_sum, self.seconds = epoch, 0, 0.0, 0.0
        self.rate = math.nan


@dataclass(frozen=True)
class State:
    """The objects whose contents change in training. average: of the weights, if there is one."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    fabric: Fabric
    progress: Progress
    average: AveragedModel | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read. facts, origin and normalization: of the run when it began."""

    path: Path
    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]

    @property
    def normalization(self) -> Normalization:
        return Normalization.from_json(self.about["normalization"])

    @property
    def facts(self) -> dict[str, str]:
        return dict(self.about["facts"])

    def progress(self) -> Progress:
        about = dict(self.about["progress"])
        images = tuple(about.pop("images"))
        progress = Progress(**{**about, "rate": _nan(about["rate"])})
        if "confusion" in self.tensors:
            counts = self.tensors["confusion"].numpy()
            matrix = ConfusionMatrix(len(counts))
            matrix.counts += counts
            image_counts = ImageCounts(images, self.tensors["tallies"].numpy())
            progress.evaluation = Evaluation(matrix, image_counts)
        return progress

    def restore(self, state: State) -> None:
        """Put everything but the progress into the objects, bit for bit."""
        state.model.load_state_dict(self._part("model"))
        _restore_optimizer(state.optimizer, self._part("optimizer"), self.about["optimizer"])
        state.schedule.load_state_dict(dict(self.about["schedule"]))
        if state.average is not None:
            state.average.module.load_state_dict(self._part("average"))
            state.average.n_averaged.fill_(self.about["averaged"])
        scaler = dict(self.about["scaler"])
        if scaler:
            state.fabric.strategy.precision.load_state_dict(scaler)
        torch.set_rng_state(self.tensors["random.cpu"])
        if state.fabric.device.type == "cuda" and "random.cuda" in self.tensors:
            torch.cuda.set_rng_state(self.tensors["random.cuda"], state.fabric.device)

    def _part(self, name: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(f"{name}."): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(f"{name}.")
        }


class Saver:
    """Writes checkpoints of a run into RUN/checkpoints, every `minutes` and when it is told."""

    def __init__(
        self,
        run: Path,
        *,
        minutes: float,
        steps: int,
        normalization: Normalization,
        facts: Mapping[str, str],
    ) -> None:
        self.folder = make_folder(run / "checkpoints")
        self.seconds = 60 * minutes
        self.steps = steps
        self.fixed = {"normalization": normalization.to_json(), "facts": dict(facts)}
        self.last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.last >= self.seconds

    def save(self, state: State) -> Path:
        """Write a checkpoint; then, and only then, remove those before the one before it.

        Raises InputError where it cannot be written; earlier ones are whole then.
        """
        progress = state.progress
        done = (progress.epoch - 1) * self.steps + progress.step
        path = self.folder / f"step-{done:09d}.safetensors"
        write_state(path, state, self.fixed)
        for old in checkpoints(self.folder)[:-KEPT]:
            old.unlink()
        self.last = time.monotonic()
        return path


def write_state(path: Path, state: State, fixed: Mapping[str, Any]) -> None:
    """Write a checkpoint to `path`. fixed: what of it does not change during a run."""
    progress = state.progress
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    kept, groups = _optimizer_parts(state.optimizer)
    tensors |= {f"optimizer.{name}": tensor for name, tensor in kept.items()}
    averaged = 0
    if state.average is not None:
        own = state.average.module.state_dict()
        tensors |= {f"average.{name}": tensor for name, tensor in own.items()}
        averaged = int(state.average.n_averaged)
    tensors["random.cpu"] = torch.get_rng_state()
    if state.fabric.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(state.fabric.device)
    images: tuple[str, ...] = ()
    if progress.evaluation is not None:
        tensors["confusion"] = torch.from_numpy(np.array(progress.evaluation.matrix.counts))
        tensors["tallies"] = torch.from_numpy(progress.evaluation.image_counts.counts)
        images = progress.evaluation.image_counts.names
    about = {
        "format": FORMAT,
        **fixed,
        "progress": {
            "epoch": progress.epoch,
            "step": progress.step,
            "loss_sum": progress.loss_sum,
            "seconds": progress.seconds,
            "rate": _plain(progress.rate),
            "best": progress.best,
            "best_epoch": progress.best_epoch,
            "history": progress.history,
            "images": images,
        },
        "optimizer": groups,
        "schedule": state.schedule.state_dict(),  # of functions in it None: the recipe has them
        "averaged": averaged,
        "scaler": state.fabric.strategy.precision.state_dict(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    write_tensor_file(path, tensors, about, key=KEY)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, from old to new."""
    return sorted(folder.glob("step-*.safetensors"))


def newest(run: Path) -> tuple[Checkpoint, list[str]]:
    """The newest whole checkpoint of a run, and a line for each damaged one that is newer.

    Raises InputError where there is none.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints(run / "checkpoints")):
        try:
            tensors, about = read_tensor_file(path, key=KEY, kind="checkpoint", remedy=REMEDY)
        except InputError as error:
            damaged += error.problems
            continue
        if about.get("format") != FORMAT:
            raise InputError(
                f"{path}: has checkpoint format {about.get('format')}, this version reads "
                f"{FORMAT}: use the version that wrote it"
            )
        return Checkpoint(path, tensors, about), damaged
    if damaged:
        raise InputError(*damaged)
    raise InputError(
        f"{run}: holds no checkpoint: it is no run, or it was stopped before the first: train anew"
    )


def _optimizer_parts(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What an optimizer keeps: tensors by `NUMBER.NAME`; numbers and groups as plain JSON."""
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for number, kept in whole["state"].items():
        for name, value in kept.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{name}"] = value
            else:
                numbers[f"{number}.{name}"] = value
    return tensors, {"groups": whole["param_groups"], "numbers": numbers}


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], about: Mapping[str, Any]
) -> None:
    kept: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **about["numbers"]}.items():
        number, _, name = key.partition(".")
        kept.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": kept, "param_groups": about["groups"]})
    # In the memory order of their weights, as they grew: with another the same sums would be
    # rounded in another way.
    for weight, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                values[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
