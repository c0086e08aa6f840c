"""A run's folder.

RUN/recipe.toml          the resolved recipe
RUN/data.json            the splits, the classes, their pixels, and what was assumed
RUN/metrics.jsonl        one JSON object a line: start, resume, step, epoch, end
RUN/best.safetensors     the bundle of the epoch with the highest val mIoU
RUN/val_images.safetensors   what each val image adds to the scores of the best bundle
RUN/last.safetensors     the bundle of the last finished epoch
RUN/checkpoints          what `train --resume RUN` goes on from
RUN/tensorboard          what TensorBoard shows, where the recipe asks for it
RUN/not_finite           the batch, and the state before it, where the loss stopped being finite
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pixelwise
from pixelwise.data.dataset import SegmentationData
from pixelwise.errors import InputError
from pixelwise.evaluation import Evaluation
from pixelwise.file_io import atomic, not_writable
from pixelwise.recipes.schema import Recipe
from pixelwise.training.resume_state import Progress
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import Normalization

VAL_IMAGES = "val_images.safetensors"
RUN_FILES = (
    "recipe.toml",
    "data.json",
    "metrics.jsonl",
    "best.safetensors",
    "last.safetensors",
    VAL_IMAGES,
)
RUN_FOLDERS = ("checkpoints", "not_finite", "tensorboard")
STEP_RECORD_SECONDS = 10.0


@dataclass
class Run:
    """A run, finished or not.

    facts: what a person reads about it before the first step.
    """

    folder: Path
    recipe: Recipe
    data: SegmentationData
    normalization: Normalization
    facts: dict[str, str]
    progress: Progress = field(default_factory=Progress)

    @property
    def best(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def val_images(self) -> Path:
        return self.folder / VAL_IMAGES

    @property
    def last(self) -> Path:
        return self.folder / "last.safetensors"

    @property
    def history(self) -> list[dict[str, Any]]:
        """The epoch rows of metrics.jsonl."""
        return self.progress.history

    @property
    def best_epoch(self) -> int:
        return self.progress.best_epoch

    @property
    def evaluation(self) -> Evaluation | None:
        """Of the best epoch on val."""
        return self.progress.evaluation

    def bundle(self, model: nn.Module, evaluation: Evaluation, *, epoch: int) -> Bundle:
        """The model as it is after an epoch."""
        return Bundle(
            model=self.recipe.model.name,
            options=self.recipe.model.options,
            classes=self.data.classes,
            normalization=self.normalization,
            weights=model.state_dict(),
            pixels=self.data.pixels,
            recipe=self.recipe.to_json(),
            scores={
                "split": "val",
                "epoch": epoch,
                **evaluation.scores.to_json(self.data.classes.names),
            },
        )


def refuse_used(out: Path, *, overwrite: bool) -> None:
    """Raise InputError where `out` is a file, or holds a run that may not be replaced."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file: give a folder for the run with --out")
    if out.is_dir() and not overwrite and any((out / name).exists() for name in RUN_FILES):
        raise InputError(
            f"{out}: holds a run already: choose another --out, add --overwrite, or go on with "
            f"--resume {out}"
        )


def clear(out: Path) -> None:
    """Remove an earlier run's files, so that none of them is taken for one of this run."""
    for name in (*RUN_FILES, "report.html"):
        (out / name).unlink(missing_ok=True)
    for name in RUN_FOLDERS:
        if (out / name).is_dir():
            shutil.rmtree(out / name)


def write_start(run: Run, *, processes: int) -> None:
    """Write all that is known before the first step. processes: that it is shared out over."""
    write_text(run.folder / "recipe.toml", run.recipe.to_toml())
    splits = {
        split: [{"name": s.name, "image": str(s.image), "mask": str(s.mask.path)} for s in samples]
        for split, samples in run.data.splits.items()
    }
    about = {
        "root": str(run.data.root.resolve()),
        "layout": run.data.layout,
        "notes": run.data.notes,
        "images": run.data.pixels.to_json(),
        "classes": run.data.classes.to_json(),
        "pixels": _pixels(run.data),
        "splits": splits,
    }
    write_text(run.folder / "data.json", json.dumps(about, indent=1) + "\n")
    Metrics(run.folder).write("start", {**_where(processes), "kernels": run.facts["kernels"]})


def read_root(folder: Path) -> Path:
    """The folder of the data that a run was started on."""
    return Path(_data_json(folder)["root"])


def check_same_data(folder: Path, data: SegmentationData) -> None:
    """Raise InputError where the data are not those that the run was started on.

    Names, classes, and the pixels of each class are compared: a mask that was changed shows there.
    """
    about = _data_json(folder)
    remedy = "restore it, or train anew"
    for split, samples in data.splits.items():
        before = {sample["name"] for sample in about["splits"].get(split, [])}
        now = {sample.name for sample in samples}
        for names, what in ((before - now, "gone"), (now - before, "new")):
            if names:
                raise InputError(
                    f"{data.root}: {len(names)} images of {split} are {what} since the run began, "
                    f"as {min(names)}: {remedy}"
                )
    if about["classes"] != data.classes.to_json():
        raise InputError(f"{data.root}: its classes have changed since the run began: {remedy}")
    if about["pixels"] != _pixels(data):
        raise InputError(f"{data.root}: masks have changed since the run began: {remedy}")


def fingerprint(data: SegmentationData) -> str:
    """Of the names, the classes, and the pixels of each class: equal for equal data."""
    names = {split: [sample.name for sample in samples] for split, samples in data.splits.items()}
    about = json.dumps([names, data.classes.to_json(), _pixels(data)])
    return hashlib.sha256(about.encode()).hexdigest()


def _pixels(data: SegmentationData) -> dict[str, list[int]]:
    return {split: counts.tolist() for split, counts in data.pixel_counts.items()}


def _data_json(folder: Path) -> dict[str, Any]:
    path = folder / "data.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return {key: about[key] for key in ("root", "classes", "pixels", "splits")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is not there or damaged: give the folder of a run that train wrote"
        ) from error


def _where(processes: int) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "pixelwise": pixelwise.__version__,
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "processes": processes,
    }


def write_text(path: Path, text: str) -> None:
    with atomic(path) as side:
        side.write_text(text, encoding="utf-8")


class Metrics:
    """Lines of JSON, appended and flushed one by one; a reader may meet a torn last line.

    writes: False in all processes of a run but one.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.path = folder / "metrics.jsonl"
        self.writes = writes
        self.last_step = -math.inf

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        if not self.writes:
            return
        line = json.dumps({"event": event, **values}, allow_nan=False)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise not_writable(self.path, error) from error

    def step(self, **values: Any) -> None:
        """Record a step, unless one was recorded a moment ago."""
        now = time.monotonic()
        if now - self.last_step >= STEP_RECORD_SECONDS:
            self.last_step = now
            self.write("step", values)

    def resume(self, progress: Progress, *, processes: int) -> None:
        """Take back what was recorded beyond the place from which a run goes on; say so."""
        if not self.writes:
            return
        kept = []
        for line in read_metrics(self.path.parent):
            place = (line.get("epoch", 0), line.get("step", math.inf))
            if line["event"] == "step" and place > (progress.epoch, progress.step):
                continue
            if line["event"] == "end" or (line["event"] == "epoch" and place[0] >= progress.epoch):
                continue
            kept.append(json.dumps(line, allow_nan=False) + "\n")
        write_text(self.path, "".join(kept))
        self.write("resume", {**_where(processes), "epoch": progress.epoch, "step": progress.step})


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, none where there is no file."""
    path, lines = folder / "metrics.jsonl", []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:  # torn by a kill
            continue
        if isinstance(line, dict) and "event" in line:
            lines.append(line)
    return lines
