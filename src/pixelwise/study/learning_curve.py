"""Learning curve: how the scores grow with the number of training images.

OUT/study.json           the settings, so that a study is not continued with others
OUT/run-IMAGES-SEED      the run of each training
OUT/learning_curve.json  the scores, the curves, and what twice the data would bring
OUT/learning_curve.html  the same as a page

Each training has the same number of steps, so that more images mean more variety and not more
training, and is scored once, at its end. The subsets of one seed are nested and contain every
class. A study that was stopped or killed continues with its unfinished training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE, listed
from pixelwise.data.dataset import SegmentationData
from pixelwise.distributed.environment import read_distributed_env
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.evaluation.image_counts import load_image_counts
from pixelwise.file_io import write_text
from pixelwise.folder_lock import NAME as LOCK
from pixelwise.folder_lock import FolderLock
from pixelwise.overwriting import check_output, html_mark, json_mark
from pixelwise.planning.training_data import open_training_data
from pixelwise.process_settings import cores
from pixelwise.recipes.schema import Recipe
from pixelwise.study.curve_results import PAGE, RESULTS, FinishedTraining, LearningCurve
from pixelwise.training.callbacks import Callback, CallbackList
from pixelwise.training.run_folder import VAL_IMAGES, fingerprint, read_metrics
from pixelwise.training.runs import plan_training, train_or_resume

FRACTIONS = (0.125, 0.25, 0.5, 1.0)
SEEDS = 3
MINUTES = 60.0
COMMAND = "learning-curve"


class StudyCallback(Callback):
    """A callback of runs that also reports the trainings of a study."""

    def on_training_begin(self, number: int, total: int, images: int, seed: int) -> None:
        """Called before each training, with its number from 1."""

    def on_training_end(self, training: FinishedTraining) -> None:
        """Called after each training."""


@dataclass(frozen=True)
class _Study:
    """A prepared study: its data, and what all trainings have in common."""

    out: Path
    data: SegmentationData
    pixels: NDArray[np.int64]  # (N, C) of each training image
    recipe: Recipe
    steps: int

    def folder(self, images: int, seed: int) -> Path:
        return self.out / f"run-{images:06d}-{seed}"


def learning_curve(
    root: Path | SegmentationData,
    out: Path,
    recipe: Recipe,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: int = SEEDS,
    minutes: float | None = MINUTES,
    steps: int | None = None,
    callback: StudyCallback | None = None,
) -> LearningCurve:
    """Train on nested subsets of the training images, and fit the curve of the scores.

    The same call continues a study; `fractions`, `seeds` and `minutes` may be others then. For the
    other arguments and errors see `pixelwise.learning_curve`.

    Args:
        recipe: The recipe of all trainings. What is "auto" is chosen once, for all images.
        minutes: Time budget of this call: no training begins that would probably exceed it, and
            none continues after it. None: no limit.
        steps: Steps of each training. None: as many as fit into `minutes`, or those of a training
            with all images if the recipe sets `epochs` or there is no limit.

    Raises:
        TrainingError: If a training diverges.
    """
    callback = callback or StudyCallback()
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    _check_arguments(fractions, seeds, minutes, steps)
    with FolderLock(out, COMMAND) as lock:
        _check_files(out)
        data = root
        if isinstance(data, Path):
            data = open_training_data(data, recipe, callback.on_dataset_progress)
        sizes = subset_sizes(len(data.splits["train"]), fractions)
        pixels = count_class_pixels(data)
        orders = [nested_order(pixels, recipe.seed + seed) for seed in range(seeds)]
        _check_cover(data, pixels, orders, sizes)
        share = None if minutes is None else minutes / (len(sizes) * seeds)
        lock.take()
        planned, steps = _plan(data, out, recipe, share, steps, callback)
        study = _Study(out, data, pixels, planned, steps)
        trainings = _run_trainings(study, sizes, orders, deadline, callback)
        result = LearningCurve(
            out, data.classes, len(data.splits["train"]), steps, len(sizes) * seeds, trainings
        )
        write_text(out / RESULTS, _marked(result.to_json()))
        result.write_page()
    return result


def subset_sizes(images: int, fractions: Sequence[float]) -> list[int]:
    """Return the numbers of images of the subsets, ascending, without duplicates."""
    return sorted({max(1, round(images * fraction)) for fraction in fractions})


def count_class_pixels(data: SegmentationData) -> NDArray[np.int64]:
    """Count the pixels of each class in each training mask, (N, C), on all cores."""

    def count(index: int) -> NDArray[np.intp]:
        mask = data.read(data.splits["train"][index])[1]
        return np.bincount(mask[mask != IGNORE], minlength=len(data.classes))

    with ThreadPoolExecutor(cores()) as pool:
        counted = list(pool.map(count, range(len(data.splits["train"]))))
    return np.stack(counted).astype(np.int64)


def nested_order(pixels: NDArray[np.int64], seed: int) -> NDArray[np.intp]:
    """Return a random order of the images that begins with images of every class.

    The first n images are the subset of size n. For each class that the images so far lack, the
    rarest first, the next image with it in the random order moves to the front.

    Args:
        pixels: (N, C) pixels of each class in each image.
        seed: Random seed.
    """
    order = np.random.default_rng(seed).permutation(len(pixels))
    present = pixels[order] > 0
    front: list[int] = []
    images_with = present.sum(axis=0)
    for index in np.argsort(images_with, kind="stable"):
        if images_with[index] and not present[front, index].any():
            front.append(int(present[:, index].argmax()))
    rest = np.setdiff1d(np.arange(len(order)), front)
    return np.asarray(order[np.concatenate([np.array(front, dtype=np.intp), rest])])


def repeat_subset(
    data: SegmentationData, chosen: NDArray[np.intp], pixels: NDArray[np.int64], length: int
) -> SegmentationData:
    """Return a dataset whose epoch has `length` images: some training images, again and again.

    Each occurs equally often, but for one. With one epoch, trainings on any number of images have
    equally many steps, and are validated once.

    Args:
        data: The dataset.
        chosen: Indices of training images.
        pixels: (N, C) pixels of each class in each training image.
        length: Length of the training split.
    """
    subset = [data.splits["train"][index] for index in sorted(chosen)]
    repeated = [subset[i % len(subset)] for i in range(length)]
    return replace(
        data,
        splits={"train": repeated, "val": data.splits["val"]},
        pixel_counts={**data.pixel_counts, "train": pixels[chosen].sum(axis=0)},
    )


def _check_arguments(
    fractions: Sequence[float], seeds: int, minutes: float | None, steps: int | None
) -> None:
    if read_distributed_env() is not None:
        raise InputError(f"{COMMAND}: runs in a single process: start it without torchrun and srun")
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise InputError(f"fractions {fraction:g}: give numbers above 0 and up to 1")
    if len(set(fractions)) < 2:
        raise InputError(f"fractions {listed([f'{f:g}' for f in fractions])}: give at least two")
    for name, value, least in (("seeds", seeds, 1), ("steps", steps, 1)):
        if value is not None and value < least:
            raise InputError(f"{name} {value}: must be at least {least}")
    if minutes is not None and not minutes > 0:
        raise InputError(f"minutes {minutes:g}: must be above 0")


def _check_files(out: Path) -> None:
    """Raise InputError if the folder holds something else than a study."""
    if out.is_dir():
        if not (out / "study.json").exists() and any(path.name != LOCK for path in out.iterdir()):
            raise InputError(f"{out}: holds other files: choose another --out")
        for name, mark in (
            ("study.json", json_mark(COMMAND)),
            (RESULTS, json_mark(COMMAND)),
            (PAGE, html_mark("study")),
        ):
            check_output(out / name, mark=mark)


def _check_cover(
    data: SegmentationData,
    pixels: NDArray[np.int64],
    orders: Sequence[NDArray[np.intp]],
    sizes: Sequence[int],
) -> None:
    """Raise InputError if the smallest subset cannot contain every class."""
    present = pixels.any(axis=0)
    if len(sizes) < 2:
        raise InputError(
            f"{data.root}: the fractions of its {len(pixels)} training images are all "
            f"{sizes[0]} images: give fractions that differ more, or label more images"
        )
    for order in orders:
        covered = pixels[order].cumsum(axis=0)[:, present].all(axis=1)
        if not covered.any():
            raise InputError(f"{data.root}: no pixel of train belongs to a class: label some")
        needed = int(covered.argmax()) + 1
        if needed > sizes[0]:
            raise InputError(
                f"{data.root}: the smallest subset has {sizes[0]} of {len(pixels)} images, but "
                f"every class needs {needed}: give a smallest fraction of at least "
                f"{np.ceil(1000 * needed / len(pixels)) / 1000:g}"
            )


def _plan(
    data: SegmentationData,
    out: Path,
    recipe: Recipe,
    minutes: float | None,
    steps: int | None,
    callback: Callback,
) -> tuple[Recipe, int]:
    """Return the resolved recipe and the steps of all trainings, those of an earlier call if any.

    Args:
        data: The dataset.
        out: Folder of the study.
        recipe: The recipe.
        minutes: Time for each training, if there is a limit.
        steps: Stated steps of each training.
        callback: Receives the progress.
    """
    path = out / "study.json"
    stated = {"recipe": recipe.to_json(), "data": fingerprint(data)}
    if path.exists():
        before = _read_study(path)
        changed = [key for key in stated if before[key] != stated[key]]
        if steps is not None and steps != before["steps"]:
            changed.append("number of steps")
        if changed:
            raise InputError(
                f"{out}: holds a study with another {changed[0]}: use the original settings, or "
                "choose another --out"
            )
        return Recipe.model_validate(before["resolved"]), int(before["steps"])
    planned = recipe
    if steps is not None:
        planned = recipe.replace({"epochs": 1, "minutes": 0.0})
    elif minutes is not None and recipe.epochs == "auto" and not recipe.minutes:
        planned = recipe.replace({"minutes": minutes})
    resolved = plan_training(data, out / "plan", planned, callback=callback).recipe
    if steps is None:
        steps = resolved.epochs * -(-len(data.splits["train"]) // resolved.batch_size)
    plain = resolved.replace({"epochs": 1, "minutes": 0.0})
    content = {**stated, "resolved": plain.to_json(), "steps": steps}
    write_text(path, _marked(content))
    return plain, steps


def _read_study(path: Path) -> dict[str, Any]:
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
        return {key: study[key] for key in ("recipe", "data", "resolved", "steps")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged: choose another --out") from error


def _marked(content: Mapping[str, Any]) -> str:
    marked = {"written_by": f"pixelwise {COMMAND}", **content}
    return json.dumps(marked, indent=1, allow_nan=False) + "\n"


class _OutOfTimeError(PixelwiseError):
    """The time budget is used up; the training can be continued."""


@dataclass
class _Deadline(Callback):
    """Ends a training when the time is up."""

    deadline: float

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        if time.monotonic() >= self.deadline:
            raise _OutOfTimeError


def _run_trainings(
    study: _Study,
    sizes: Sequence[int],
    orders: Sequence[NDArray[np.intp]],
    deadline: float | None,
    callback: StudyCallback,
) -> list[FinishedTraining]:
    """Train on each subset, seed after seed, until the time is up; return all that are finished."""
    finished: list[FinishedTraining] = []
    planned = [(seed, images) for seed in range(len(orders)) for images in sizes]
    is_open = True
    for number, (seed, images) in enumerate(planned, 1):
        folder = study.folder(images, seed)
        training = _read_finished(folder, images, seed)
        if training is None and is_open:
            seconds = max((other.seconds for other in finished), default=0.0)
            is_open = deadline is None or time.monotonic() + seconds < deadline
            if is_open:
                callback.on_training_begin(number, len(planned), images, seed)
                try:
                    _train(study, folder, orders[seed][:images], seed, deadline, callback)
                except _OutOfTimeError:
                    is_open = False
                training = _read_finished(folder, images, seed)
                if training is not None:
                    callback.on_training_end(training)
        if training is not None:
            finished.append(training)
    return finished


def _train(
    study: _Study,
    folder: Path,
    chosen: NDArray[np.intp],
    seed: int,
    deadline: float | None,
    callback: Callback,
) -> None:
    """Train on some images, or resume the training."""
    assert isinstance(study.recipe.batch_size, int)  # resolved
    length = study.steps * study.recipe.batch_size
    data = repeat_subset(study.data, chosen, study.pixels, length)
    recipe = study.recipe.replace({"seed": study.recipe.seed + seed})
    callbacks = CallbackList(callback, None if deadline is None else _Deadline(deadline))
    train_or_resume(data, folder, recipe, callback=callbacks)


def _read_finished(folder: Path, images: int, seed: int) -> FinishedTraining | None:
    """Return the scores of a training; None if it is not finished."""
    lines = read_metrics(folder)
    epochs = [line for line in lines if line["event"] == "epoch"]
    if not epochs or not any(line["event"] == "end" for line in lines):
        return None
    counts = load_image_counts(folder / VAL_IMAGES).image_counts.counts
    seconds = epochs[-1]["seconds"] + epochs[-1]["val_seconds"]
    return FinishedTraining(images, seed, counts, float(seconds))
