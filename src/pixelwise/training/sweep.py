"""Search for a better recipe with Optuna, on a budget: learning rate, crop and backbone.

OUT/sweep.json      the search space, so that a sweep is not continued with another one
OUT/trials.log      the journal of Optuna: parameters and results of the trials
OUT/trial-NNN       the run of each trial
OUT/best.toml       the recipe of the best trial

New trials are sampled close to good ones (TPE). A trial is pruned if it is below the median of the
others at the same epoch. A sweep that was stopped or killed continues with its unfinished trial.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_statistics import CROP_MULTIPLE, usual_crop
from pixelwise.distributed.environment import read_distributed_env
from pixelwise.errors import InputError, PixelwiseError, needs_package
from pixelwise.file_io import write_text
from pixelwise.folder_lock import NAME as LOCK
from pixelwise.folder_lock import FolderLock
from pixelwise.models import create_model
from pixelwise.overwriting import check_output
from pixelwise.planning.plan import CROP
from pixelwise.recipes.load_recipe import load_recipe
from pixelwise.recipes.schema import MAX_ADAMW_RATE, Recipe
from pixelwise.training.callbacks import Callback, CallbackList
from pixelwise.training.runs import train_or_resume
from pixelwise.training.trainer import TrainingError
from pixelwise.weights.published.fetch import find_imagenet_weights

if TYPE_CHECKING:
    import optuna

BACKBONE = "model.options.backbone"
RATE_FACTOR = 10.0
"""The learning rate is searched between the recipe's divided by this and times this."""
CROP_FACTORS = (1.0, 0.75, 0.5)
"""Side lengths of the crops, relative to the recipe's or the usual crop."""
BEST_MARK = "# Written by pixelwise sweep"
"""The first line of best.toml."""
STARTUP_TRIALS = 4
"""Trials that finish before one can be pruned."""


@dataclass(frozen=True)
class SearchSpace:
    """The search space.

    Attributes:
        learning_rate: Lowest and highest learning rate.
        crops: The crops, each (height, width).
        backbones: Names of backbones. Empty: the backbone of the recipe.
    """

    learning_rate: tuple[float, float]
    crops: tuple[tuple[int, int], ...]
    backbones: tuple[str, ...] = ()

    def suggest(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        """Return values of recipe keys for a trial; a continued trial keeps its values."""
        trial.suggest_float("optimizer.learning_rate", *self.learning_rate, log=True)
        trial.suggest_categorical(CROP, [f"{height}x{width}" for height, width in self.crops])
        if self.backbones:
            trial.suggest_categorical(BACKBONE, self.backbones)
        return _settings(trial.params)


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial.

    Attributes:
        number: Number of the trial, from 0.
        state: complete, pruned, failed, or running if it can be continued.
        settings: Values of recipe keys.
        mean_iou: Best val mIoU (0..1), or None before the first validation.
        epochs: Number of epochs.
    """

    number: int
    state: str
    settings: Mapping[str, Any]
    mean_iou: float | None
    epochs: int

    @property
    def folder(self) -> str:
        """Name of the folder of its run."""
        return f"trial-{self.number:03d}"


@dataclass(frozen=True)
class Sweep:
    """The results of a sweep, best trial first."""

    out: Path
    trials: list[TrialResult]

    @property
    def best(self) -> TrialResult | None:
        """The best complete trial, or None."""
        return next((trial for trial in self.trials if trial.state == "complete"), None)

    @property
    def recipe(self) -> Path:
        """Recipe file of the best trial."""
        return self.out / "best.toml"

    def to_json(self) -> dict[str, Any]:
        """Return the results as plain JSON."""
        return {
            "best": None if self.best is None else self.best.number,
            "trials": [
                {
                    "trial": trial.number,
                    "state": trial.state,
                    "val_mean_iou": trial.mean_iou,
                    "epochs": trial.epochs,
                    **trial.settings,
                }
                for trial in self.trials
            ],
        }


class SweepCallback(Callback):
    """A callback of runs that also reports the trials of a sweep."""

    def on_trial_begin(self, number: int, settings: Mapping[str, Any]) -> None:
        """Called before each trial with its values of recipe keys."""

    def on_trial_end(self, trial: TrialResult) -> None:
        """Called after each trial."""


def make_search_space(
    recipe: Recipe, data: SegmentationData, *, backbones: Sequence[str] = ()
) -> SearchSpace:
    """Return a space around the recipe's learning rate, and at and below its crop.

    If the recipe sets no crop, that is the usual crop of the dataset's images.
    """
    rate = recipe.optimizer.learning_rate
    crop = recipe.augmentation.crop
    sides = usual_crop(list(data.sizes.values())) if isinstance(crop, str) else crop

    def scale(side: int, factor: float) -> int:
        return max(CROP_MULTIPLE, round(side * factor / CROP_MULTIPLE) * CROP_MULTIPLE)

    height, width = sides
    crops = dict.fromkeys((scale(height, f), scale(width, f)) for f in CROP_FACTORS)
    highest = MAX_ADAMW_RATE if recipe.optimizer.name == "adamw" else math.inf
    rates = rate / RATE_FACTOR, min(rate * RATE_FACTOR, highest)
    return SearchSpace(rates, tuple(crops), tuple(backbones))


def sweep(
    root: Path,
    out: Path,
    recipe: Recipe,
    space: SearchSpace,
    *,
    trials: int,
    minutes: float | None = None,
    callback: SweepCallback | None = None,
) -> Sweep:
    """Run trials until `out` holds `trials` of them, including earlier calls' trials.

    A trial whose loss is not finite counts as failed.

    Args:
        root: Folder of images and masks.
        out: Folder for the trials.
        recipe: The recipe. It must set the number of epochs, so that trials can be compared.
        space: The search space.
        trials: Number of trials.
        minutes: Time budget. No epoch begins after it; the next call continues the current trial.
        callback: Receives the progress.

    Raises:
        InputError: If Optuna is not installed, `out` holds something else, or the dataset or the
            recipe has a problem.
        TrainingStoppedError: On Ctrl-C or SIGTERM.
    """
    callback = callback or SweepCallback()
    if read_distributed_env() is not None:
        raise InputError("sweep: runs in a single process: start it without torchrun and srun")
    if recipe.epochs == "auto":
        raise InputError("epochs = 'auto': a sweep compares equally long trials: set a number")
    require_optuna()
    _check_backbones(recipe, space.backbones)
    with FolderLock(out, "sweep") as lock:
        lock.take()
        _check_or_write_space(out, root, recipe, space)
        study = _load_study(out, recipe.seed, recipe.epochs)
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        _run_trials(study, root, out, recipe, space, trials, deadline, callback)
        results = [_trial_result(frozen) for frozen in study.trials]
        results.sort(key=lambda trial: 1 if trial.mean_iou is None else -trial.mean_iou)
        result = Sweep(out, results)
        if result.best is not None:
            _check_best(out)  # it may have appeared meanwhile
            text = _replace(recipe, result.best.settings).to_toml()
            write_text(result.recipe, f"{BEST_MARK}\n{text}")
    return result


def _run_trials(
    study: optuna.Study,
    root: Path,
    out: Path,
    recipe: Recipe,
    space: SearchSpace,
    trials: int,
    deadline: float | None,
    callback: SweepCallback,
) -> None:
    """Run trials until there are enough of them or the time is up."""
    assert isinstance(recipe.epochs, int)
    while True:
        trial = _next_trial(study, trials)
        if trial is None or (deadline is not None and time.monotonic() >= deadline):
            break
        settings = space.suggest(trial)
        callback.on_trial_begin(trial.number, settings)
        reported = dict(study.trials[trial.number].intermediate_values)
        reporter = _Reporter(trial, reported, recipe.epochs, deadline)
        callbacks = CallbackList(callback, reporter)
        folder = out / f"trial-{trial.number:03d}"
        try:
            _run_trial(study, trial, root, folder, _replace(recipe, settings), callbacks)
        except _OutOfTimeError:
            break
        callback.on_trial_end(_trial_result(study.trials[trial.number]))


def require_optuna() -> None:
    """Raise InputError if Optuna is not installed."""
    with needs_package("sweep needs Optuna, which is not installed: pip install 'optuna>=4.2'"):
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)


class _OutOfTimeError(PixelwiseError):
    """The time budget is used up; the trial can be continued."""


class _PrunedError(PixelwiseError):
    """The trial is below the median."""


@dataclass
class _Reporter(Callback):
    """Report the score of each epoch to Optuna, and end the trial if Optuna prunes it."""

    trial: optuna.trial.Trial
    reported: dict[int, float]
    epochs: int
    deadline: float | None

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        # At the first step of an epoch a checkpoint of the previous one exists; at its end not yet.
        late = self.deadline is not None and time.monotonic() >= self.deadline
        if late and epoch > 1 and step == 1:
            raise _OutOfTimeError

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        epoch = row["epoch"]
        if epoch not in self.reported:  # a resumed trial may repeat an epoch
            best = max(row["val_mean_iou"] or 0.0, *self.reported.values(), 0.0)
            self.reported[epoch] = best
            self.trial.report(best, epoch)
        if epoch < self.epochs and self.trial.should_prune():
            raise _PrunedError


def _run_trial(
    study: optuna.Study,
    trial: optuna.trial.Trial,
    root: Path,
    folder: Path,
    recipe: Recipe,
    callback: Callback,
) -> None:
    """Train or resume the run of a trial, and record its result in the study."""
    from optuna.trial import TrialState

    try:
        run = train_or_resume(root, folder, recipe, callback=callback)
    except _PrunedError:
        study.tell(trial, state=TrialState.PRUNED)
    except TrainingError:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, max(row["val_mean_iou"] or 0.0 for row in run.history))


def _check_best(out: Path) -> None:
    """Raise InputError if the recipe of the best trial would replace somebody else's file."""
    check_output(out / "best.toml", mark=BEST_MARK)


def _check_or_write_space(out: Path, root: Path, recipe: Recipe, space: SearchSpace) -> None:
    """Write the search space, or check that it is that of an earlier call."""
    path = out / "sweep.json"
    _check_best(out)
    description = {
        "data": str(root.resolve()),
        "recipe": recipe.to_json(),
        "rate": list(space.learning_rate),
        "crops": [list(crop) for crop in space.crops],
        "backbones": list(space.backbones),
    }
    if not path.exists():
        if any(path.name != LOCK for path in out.iterdir()):
            raise InputError(f"{out}: holds other files: choose another --out")
        write_text(path, json.dumps(description, indent=1) + "\n")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in description if before.get(key) != description[key]]
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: is damaged: choose another --out") from error
    if changed:
        raise InputError(
            f"{out}: holds a sweep with another {changed[0]}: use the original settings, or choose "
            "another --out"
        )


def _load_study(out: Path, seed: int, epochs: int) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(out / "trials.log")))
    study = optuna.create_study(
        study_name="sweep", storage=storage, direction="maximize", load_if_exists=True
    )
    # The seed depends on the number of trials, so that a continued sweep draws new ones.
    study.sampler = optuna.samplers.TPESampler(
        seed=seed + len(study.trials), n_startup_trials=STARTUP_TRIALS
    )
    study.pruner = optuna.pruners.MedianPruner(
        n_startup_trials=STARTUP_TRIALS, n_warmup_steps=epochs // 4
    )
    return study


def _next_trial(study: optuna.Study, count: int) -> optuna.trial.Trial | None:
    """Return the unfinished trial of a stopped sweep, a new one, or None if there are enough."""
    from optuna.trial import Trial, TrialState

    existing = study.trials
    for frozen in existing:
        if frozen.state == TrialState.RUNNING:
            return Trial(study, frozen._trial_id)
    return study.ask() if len(existing) < count else None


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of recipe keys for the parameters of Optuna, where a crop is a string."""
    return {
        key: [int(side) for side in value.split("x")] if key == CROP else value
        for key, value in params.items()
    }


def _trial_result(frozen: optuna.trial.FrozenTrial) -> TrialResult:
    values = frozen.intermediate_values
    score = frozen.value if frozen.value is not None else max(values.values(), default=None)
    state = {"FAIL": "failed"}.get(frozen.state.name, frozen.state.name.lower())
    return TrialResult(frozen.number, state, _settings(frozen.params), score, len(values))


def _replace(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    return load_recipe(None, recipe.flat() | dict(settings))


def _check_backbones(recipe: Recipe, backbones: Sequence[str]) -> None:
    """Raise InputError if the network does not support a backbone, or its weights are missing."""
    for backbone in backbones:
        model = _replace(recipe, {BACKBONE: backbone}).model
        with torch.device("meta"):
            create_model(model.name, num_classes=2, **model.options)
        if model.weights == "imagenet":
            find_imagenet_weights(backbone)
