"""A search for a better recipe on a budget: learning rate, crop and backbone, by Optuna.

OUT/sweep.json      what is searched, so that another sweep does not go on with this one's trials
OUT/trials.log      Optuna's journal: what was tried, and what came of it
OUT/trial-NNN       an ordinary run each
OUT/best.toml       the recipe of the best trial

New trials follow what did well (TPE); one that is below the median of the others at the same epoch
is given up. A sweep that was stopped or killed goes on with the trial that it was at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_statistics import CROP_MULTIPLE, usual_crop
from pixelwise.distributed.process_rank import find_process_rank
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.file_io import make_folder
from pixelwise.models import create_model
from pixelwise.recipes.schema import Recipe, load_recipe, settled
from pixelwise.training.callbacks import Callback, CallbackList
from pixelwise.training.run_folder import write_text
from pixelwise.training.trainer import TrainingError, TrainingStoppedError, resume, train
from pixelwise.weights.imagenet import find_imagenet_weights

if TYPE_CHECKING:
    import optuna

RATES = 10.0
"""The rate is searched from the recipe's own divided by this to that times this."""
CROPS = (1.0, 0.75, 0.5)
"""Parts of the usual crop's sides."""
FIRST = 4
"""Trials that are finished before one can be given up."""


@dataclass(frozen=True)
class Space:
    """What is searched. crops: (height, width) each; backbones: names, or none to leave it."""

    rate: tuple[float, float]
    crops: tuple[tuple[int, int], ...]
    backbones: tuple[str, ...] = ()

    def suggest(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        """Recipe keys for a trial; the same ones for one that had its values before."""
        trial.suggest_float("learning_rate", *self.rate, log=True)
        trial.suggest_categorical("crop", [f"{height}x{width}" for height, width in self.crops])
        if self.backbones:
            trial.suggest_categorical("backbone", list(self.backbones))
        return _settings(trial.params)


@dataclass(frozen=True)
class Tried:
    """A trial: what it was, and the best val mIoU (0..1) that it reached, None if none.

    state: complete, pruned, failed, or running where it can go on.
    """

    number: int
    state: str
    settings: Mapping[str, Any]
    mean_iou: float | None
    epochs: int

    @property
    def folder(self) -> str:
        return f"trial-{self.number:03d}"


@dataclass(frozen=True)
class Sweep:
    """What a sweep found. trials: best first."""

    out: Path
    trials: list[Tried]

    @property
    def best(self) -> Tried | None:
        """The best of the complete ones."""
        return next((trial for trial in self.trials if trial.state == "complete"), None)

    @property
    def recipe(self) -> Path:
        return self.out / "best.toml"

    def to_json(self) -> dict[str, Any]:
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
    """What a sweep tells besides what its runs tell."""

    def trial_begins(self, number: int, settings: Mapping[str, Any]) -> None:
        """The recipe keys of a trial."""

    def trial_ended(self, trial: Tried) -> None:
        """What came of it."""


def make_space(recipe: Recipe, data: SegmentationData, *, backbones: Sequence[str] = ()) -> Space:
    """Around the recipe's own rate, and at and below the usual crop of such images."""
    rate = recipe.optimizer.learning_rate
    crop = recipe.augmentation.crop
    sides = usual_crop(list(data.sizes.values())) if isinstance(crop, str) else crop
    crops = dict.fromkeys(
        tuple(max(CROP_MULTIPLE, round(s * part / CROP_MULTIPLE) * CROP_MULTIPLE) for s in sides)
        for part in CROPS
    )
    return Space((rate / RATES, rate * RATES), tuple((h, w) for h, w in crops), tuple(backbones))


def sweep(
    root: Path,
    out: Path,
    recipe: Recipe,
    space: Space,
    *,
    trials: int,
    minutes: float | None = None,
    callback: SweepCallback | None = None,
) -> Sweep:
    """Try up to `trials` settings, in all that were ever tried in `out`.

    recipe: with its epochs planned or stated, so that trials can be held against each other.
    minutes: after which no epoch is begun; the trial that is amid its epochs goes on when the sweep
    is called again. A trial whose loss stops being finite counts as failed.

    Raises InputError where Optuna is not installed, `out` holds something else, or the data or the
    recipe are at fault; TrainingStoppedError by Ctrl-C or SIGTERM.
    """
    callback = callback or SweepCallback()
    if find_process_rank() is not None:
        raise InputError("sweep: is one process's work: start it without torchrun and srun")
    require_optuna()
    _check_backbones(recipe, space.backbones)
    make_folder(out)
    _settle(out, root, recipe, space)
    study = _study(out, recipe)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    while True:
        trial = _next_trial(study, trials)
        if trial is None or (deadline is not None and time.monotonic() >= deadline):
            break
        settings = space.suggest(trial)
        callback.trial_begins(trial.number, settings)
        try:
            _run_trial(study, trial, root, out, recipe, settings, callback, deadline)
        except _OutOfTimeError:
            break
        callback.trial_ended(_tried(study.trials[trial.number]))
    found = Sweep(out, _ranked(study))
    if found.best is not None:
        write_text(found.recipe, _with(recipe, found.best.settings).to_toml())
    return found


def require_optuna() -> None:
    """Raise InputError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "sweep needs Optuna, which is not installed: pip install 'optuna>=4.2'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


class _OutOfTimeError(PixelwiseError):
    """The minutes are over; the trial can go on."""


class _PrunedError(PixelwiseError):
    """The trial is below the median."""


@dataclass
class _Reporter(Callback):
    """Tells Optuna the score of each epoch, and ends the trial where it says so."""

    trial: optuna.trial.Trial
    reported: dict[int, float]
    epochs: int
    deadline: float | None

    def step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        # In an epoch's first step the one before it is in a checkpoint, at its end not yet.
        late = self.deadline is not None and time.monotonic() >= self.deadline
        if late and epoch > 1 and step == 1:
            raise _OutOfTimeError

    def epoch_ended(self, row: Mapping[str, Any]) -> None:
        epoch = row["epoch"]
        if epoch not in self.reported:  # a resumed trial may tell an epoch again
            best = max(row["val_mean_iou"] or 0.0, *self.reported.values(), 0.0)
            self.reported[epoch] = best
            self.trial.report(best, epoch)
        if epoch < self.epochs and self.trial.should_prune():
            raise _PrunedError


def _run_trial(
    study: optuna.Study,
    trial: optuna.trial.Trial,
    root: Path,
    out: Path,
    recipe: Recipe,
    settings: Mapping[str, Any],
    callback: Callback,
    deadline: float | None,
) -> None:
    from optuna.trial import TrialState

    folder = out / f"trial-{trial.number:03d}"
    known = dict(study.trials[trial.number].intermediate_values)
    reporter = _Reporter(trial, known, settled(recipe.epochs), deadline)
    both = CallbackList(callback, reporter)
    try:
        if any((folder / "checkpoints").glob("step-*.safetensors")):
            run = resume(folder, callback=both)
        else:
            run = train(root, folder, _with(recipe, settings), overwrite=True, callback=both)
    except _PrunedError:
        study.tell(trial, state=TrialState.PRUNED)
    except TrainingError:
        study.tell(trial, state=TrialState.FAIL)
    except TrainingStoppedError as error:
        raise TrainingStoppedError(
            f"stopped in {folder}, all of it kept: give the same command to go on",
            signal_number=error.exit_code - 128,
        ) from error
    else:
        study.tell(trial, max(row["val_mean_iou"] or 0.0 for row in run.history))


def _settle(out: Path, root: Path, recipe: Recipe, space: Space) -> None:
    """Write what is searched, or hold it against what an earlier call has written."""
    path = out / "sweep.json"
    about = {
        "data": str(root.resolve()),
        "recipe": recipe.to_json(),
        "rate": list(space.rate),
        "crops": [list(crop) for crop in space.crops],
        "backbones": list(space.backbones),
    }
    if not path.exists():
        if any(out.iterdir()):
            raise InputError(f"{out}: holds something else: choose another --out")
        write_text(path, json.dumps(about, indent=1) + "\n")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        other = [key for key in about if before.get(key) != about[key]]
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: is damaged: choose another --out") from error
    if other:
        raise InputError(
            f"{out}: holds a sweep with another {other[0]}: give what it was begun with, or choose "
            "another --out"
        )


def _study(out: Path, recipe: Recipe) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(out / "trials.log")))
    study = optuna.create_study(
        study_name="sweep", storage=storage, direction="maximize", load_if_exists=True
    )
    # Seeded by what is known: a sweep that goes on does not draw its first trials again.
    study.sampler = optuna.samplers.TPESampler(
        seed=recipe.seed + len(study.trials), n_startup_trials=FIRST
    )
    study.pruner = optuna.pruners.MedianPruner(
        n_startup_trials=FIRST, n_warmup_steps=settled(recipe.epochs) // 4
    )
    return study


def _next_trial(study: optuna.Study, count: int) -> optuna.trial.Trial | None:
    """The one that a stopped sweep was at, else a new one, None where there are enough."""
    from optuna.trial import Trial, TrialState

    existing = study.trials
    for frozen in existing:
        if frozen.state == TrialState.RUNNING:
            return Trial(study, frozen._trial_id)
    return study.ask() if len(existing) < count else None


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Recipe keys from the names that Optuna has for them."""
    settings: dict[str, Any] = {}
    if "learning_rate" in params:
        settings["optimizer.learning_rate"] = params["learning_rate"]
    if "crop" in params:
        settings["augmentation.crop"] = [int(side) for side in params["crop"].split("x")]
    if "backbone" in params:
        settings["model.options.backbone"] = params["backbone"]
    return settings


def _tried(frozen: optuna.trial.FrozenTrial) -> Tried:
    values = frozen.intermediate_values
    score = frozen.value if frozen.value is not None else max(values.values(), default=None)
    state = {"FAIL": "failed"}.get(frozen.state.name, frozen.state.name.lower())
    return Tried(frozen.number, state, _settings(frozen.params), score, len(values))


def _ranked(study: optuna.Study) -> list[Tried]:
    tried = [_tried(frozen) for frozen in study.trials]
    return sorted(tried, key=lambda trial: -1 if trial.mean_iou is None else -trial.mean_iou)


def _with(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    return load_recipe(None, recipe.flat() | dict(settings))


def _check_backbones(recipe: Recipe, backbones: Sequence[str]) -> None:
    """Raise InputError now for one that the network cannot have, or whose weights are not here."""
    for backbone in backbones:
        model = _with(recipe, {"model.options.backbone": backbone}).model
        with torch.device("meta"):
            create_model(model.name, num_classes=2, **model.options)
        if model.weights == "imagenet":
            find_imagenet_weights(backbone)
