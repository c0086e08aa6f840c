"""The folder of a run.

RUN/recipe.toml              the resolved recipe
RUN/data.json                splits, classes, pixel counts, and assumptions about the dataset
RUN/metrics.jsonl            one JSON object per line: start, resume, step, epoch, end
RUN/best.safetensors         bundle of the epoch with the highest val mIoU
RUN/val_images.safetensors   contribution of each val image to the scores of the best bundle
RUN/last.safetensors         bundle of the last finished epoch
RUN/finish.json              the request of `pixelwise finish RUN`, until the run has ended
RUN/checkpoints              what `train --resume RUN` resumes from
RUN/tensorboard              TensorBoard events, if the recipe enables them
RUN/not_finite               batch and state before a step whose loss was not finite
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pixelwise
from pixelwise.data.custom_dataset import CUSTOM_LAYOUT
from pixelwise.data.dataset import SegmentationData
from pixelwise.errors import InputError
from pixelwise.evaluation import Evaluation
from pixelwise.evaluation.image_counts import KEY
from pixelwise.file_io import PART, make_folder, write_errors, write_text
from pixelwise.overwriting import has_mark, html_mark, json_mark
from pixelwise.recipes.schema import CUSTOM_MODEL, ResolvedRecipe
from pixelwise.storage.addresses import as_address
from pixelwise.storage.mirror import origin
from pixelwise.training.custom_model import CustomSegmenter
from pixelwise.training.resume_state import RunProgress
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import Normalization

BEST = "best.safetensors"
VAL_IMAGES = "val_images.safetensors"
RUN_FILES = ("recipe.toml", "data.json", "metrics.jsonl", BEST, "last.safetensors", VAL_IMAGES)
RUN_FOLDERS = {
    "checkpoints": (f"step-{'[0-9]' * 9}.safetensors", f".step-*{PART}"),
    "not_finite": ("batch.safetensors", "state.safetensors", f".*.safetensors.*{PART}"),
    "tensorboard": ("events.out.tfevents.*",),
}
"""The folders in a run, with patterns of the files that training writes there."""
REPORT = "report.html"
FINISH = "finish.json"
STEP_RECORD_SECONDS = 10.0


@dataclass(repr=False)
class Run:
    """A run, finished or not.

    Attributes:
        folder: Its folder.
        recipe: Its recipe.
        data: The dataset.
        normalization: The normalization of the images.
        facts: Descriptions of the data and the settings, for reports.
        progress: Its position and results so far.
    """

    folder: Path
    recipe: ResolvedRecipe
    data: SegmentationData
    normalization: Normalization
    facts: dict[str, str]
    progress: RunProgress = field(default_factory=RunProgress)

    def __repr__(self) -> str:
        finished = f"{self.progress.epoch - 1} of {self.recipe.epochs} epochs"
        if self.ended_early:
            finished += ", ended early"
        best = ""
        if self.progress.best >= 0:
            best = f", best val mIoU {100 * self.progress.best:.1f} % in epoch {self.best_epoch}"
        return f"Run({str(self.folder)!r}: {finished}{best})"

    @property
    def how_to_resume(self) -> str:
        """The command that resumes this run; the call, if its data or module is the user's own."""
        missing = ", data=..." if self.data.layout == CUSTOM_LAYOUT else ""
        if self.recipe.model.name == CUSTOM_MODEL:
            missing += ", model=..."
        if missing:
            return f"`pixelwise.resume({str(self.folder)!r}{missing})`"
        return f"`pixelwise train --resume {self.folder}`"

    @property
    def best(self) -> Path:
        """Bundle of the best epoch."""
        return self.folder / BEST

    @property
    def val_images(self) -> Path:
        """Contribution of each val image to the scores of the best epoch."""
        return self.folder / VAL_IMAGES

    @property
    def last(self) -> Path:
        """Bundle of the last finished epoch."""
        return self.folder / "last.safetensors"

    @property
    def history(self) -> list[dict[str, Any]]:
        """The epoch rows of metrics.jsonl."""
        return self.progress.history

    @property
    def last_epoch(self) -> int:
        """The last validated epoch, from 1; 0 before the first validation."""
        return int(self.history[-1]["epoch"]) if self.history else 0

    @property
    def best_epoch(self) -> int:
        """The epoch with the highest val mIoU, from 1; 0 before the first validation."""
        return self.progress.best_epoch

    @property
    def ended_early(self) -> str:
        """Why the run ended before its last epoch; empty if it did not."""
        return self.progress.ended_early

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is over, or the run was ended early."""
        return bool(self.ended_early) or self.progress.epoch > self.recipe.epochs

    @property
    def evaluation(self) -> Evaluation | None:
        """Evaluation of the best epoch on val."""
        return self.progress.evaluation

    def bundle(self, model: nn.Module, evaluation: Evaluation, *, epoch: int) -> Bundle:
        """Return the bundle of an epoch. A user's own module is saved under its own names."""
        if isinstance(model, CustomSegmenter):
            model = model.module
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


def check_out(out: Path, *, overwrite: bool, data: Path | None = None) -> None:
    """Raise InputError if `out` is a file, holds other files, or a run that must be kept.

    The dataset may be in a folder inside `out`, as in the demo.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file: give a folder for the run with --out")
    if not out.is_dir():
        return
    parents = () if data is None else (data.resolve(), *data.resolve().parents)
    names = {
        path.name
        for path in out.iterdir()
        if not path.name.startswith(".") and path.resolve() not in parents
    }
    if names and not names & {*RUN_FILES}:
        raise InputError(
            f"{out}: holds other files and no run: choose a new or empty folder with --out"
        )
    if not overwrite and names & {*RUN_FILES}:
        raise InputError(
            f"{out}: holds a run already: choose another --out, add --overwrite, or resume it with "
            f"--resume {out}"
        )


def check_run_files(folder: Path) -> None:
    """Raise InputError if a file that a resumed run would replace is not one of a run."""
    marks = {BEST: '"pixelwise"', "last.safetensors": '"pixelwise"'}
    marks |= {VAL_IMAGES: KEY, "metrics.jsonl": '"event"', REPORT: html_mark("report")}
    marks |= {FINISH: json_mark("finish")}
    others = [
        folder / name
        for name, mark in marks.items()
        if os.path.lexists(folder / name) and not has_mark(folder / name, mark)
    ]
    if others:
        raise InputError(
            f"{others[0]}: was not written by train, and would be replaced: move it away, and "
            "resume again"
        )


def begin_run(run: Run, *, processes: int) -> None:
    """Create the folder, remove the files of an earlier run, and write recipe and dataset."""
    out = make_folder(run.folder)
    for name, patterns in RUN_FOLDERS.items():
        for pattern in patterns:
            for path in (out / name).glob(pattern):
                path.unlink()
        with suppress(OSError):  # it does not exist, or has files of others
            (out / name).rmdir()
    if has_mark(out / FINISH, json_mark("finish")):
        (out / FINISH).unlink(missing_ok=True)
    for name in (*RUN_FILES, REPORT):
        if name != "recipe.toml":  # which shows that there is a run until it is replaced
            (out / name).unlink(missing_ok=True)
    write_text(out / "recipe.toml", run.recipe.to_toml())
    write_data_json(out, run.data)
    Metrics(out).write("start", {**_environment(processes), "kernels": run.facts["kernels"]})


def write_data_json(folder: Path, data: SegmentationData) -> None:
    """Write the description of a run's dataset."""
    splits = {
        split: [
            {
                "name": sample.name,
                "image": str(sample.image),
                "mask": str(sample.mask.path),
                "checksum": data.checksums[sample.name],
            }
            for sample in samples
        ]
        for split, samples in data.splits.items()
    }
    description = {
        "root": origin(data.root) or str(data.root.resolve()),
        "layout": data.layout,
        "stated": data.stated,
        "notes": data.notes,
        "images": data.pixels.to_json(),
        "classes": data.classes.to_json(),
        "pixels": _pixel_counts(data),
        "splits": splits,
    }
    write_text(folder / "data.json", json.dumps(description, indent=1) + "\n")


def read_root(folder: Path) -> Path:
    """Return the dataset folder of a run.

    Raises:
        InputError: If the dataset was a user's own, or is no longer in its folder.
    """
    description = _read_data_json(folder)
    if description["layout"] == CUSTOM_LAYOUT:
        raise InputError(
            f"{folder}: was trained on an in-memory dataset: pass it with resume(folder, data=...)"
        )
    root = Path(description["root"])
    if as_address(root) is None and not root.exists():
        raise InputError(
            f"{folder}: its dataset {root} does not exist: if it has moved, give its folder: "
            f"`pixelwise train DATA --resume {folder}`"
        )
    return root


def check_model(folder: Path, recipe: ResolvedRecipe, model: nn.Module | None) -> None:
    """Raise InputError if a user's own module is missing, or passed to another run."""
    if recipe.model.name == CUSTOM_MODEL and model is None:
        raise InputError(
            f"{folder}: was trained with a custom module: pass it with resume(folder, model=...)"
        )
    if recipe.model.name != CUSTOM_MODEL and model is not None:
        raise InputError(f"{folder}: was trained with {recipe.model.name}: omit model=")


def check_same_data(folder: Path, data: SegmentationData) -> None:
    """Raise InputError if the dataset has changed since the run began.

    Names and pixels of images and masks, the classes, and what is stated about the dataset are
    compared. The folder may be another.
    """
    description = _read_data_json(folder)
    remedy = "restore the dataset, or train again"
    if description.get("stated", {}) != json.loads(json.dumps(data.stated)):
        raise InputError(
            f"{data.root}: what data.toml and the options state about the dataset has changed "
            f"since the run began: {remedy}"
        )
    for split, samples in data.splits.items():
        before = {sample["name"]: sample for sample in description["splits"].get(split, [])}
        now = {sample.name for sample in samples}
        changed = {
            name
            for name in before.keys() & now
            # Earlier versions recorded no checksums.
            if before[name].get("checksum", data.checksums[name]) != data.checksums[name]
        }
        for names, files, change in (
            (before.keys() - now, "images", "are missing"),
            (now - before.keys(), "images", "are new"),
            (changed, "images or masks", "have changed"),
        ):
            if names:
                raise InputError(
                    f"{data.root}: {len(names)} {files} of {split} {change} since the run began, "
                    f"such as {min(names)}: {remedy}"
                )
    if description["classes"] != data.classes.to_json():
        raise InputError(f"{data.root}: the classes have changed since the run began: {remedy}")
    if description["pixels"] != _pixel_counts(data):
        raise InputError(f"{data.root}: masks have changed since the run began: {remedy}")


def fingerprint(data: SegmentationData) -> str:
    """Return a hash of names, pixels and classes."""
    names = {split: [sample.name for sample in samples] for split, samples in data.splits.items()}
    text = json.dumps([names, data.checksums, data.classes.to_json(), _pixel_counts(data)])
    return hashlib.sha256(text.encode()).hexdigest()


def _pixel_counts(data: SegmentationData) -> dict[str, list[int]]:
    return {split: counts.tolist() for split, counts in data.pixel_counts.items()}


def _read_data_json(folder: Path) -> dict[str, Any]:
    path = folder / "data.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        needed = ("root", "layout", "classes", "pixels", "splits")
        return {"stated": description.get("stated", {})} | {k: description[k] for k in needed}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is missing or damaged: give the folder of a run that train wrote"
        ) from error


def _environment(processes: int) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "pixelwise": pixelwise.__version__,
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "processes": processes,
    }


class Metrics:
    """Appends JSON lines to RUN/metrics.jsonl, each flushed; a kill may leave a partial last line.

    Args:
        folder: Folder of the run.
        enabled: Whether this process writes.
    """

    def __init__(self, folder: Path, *, enabled: bool = True) -> None:
        self.path = folder / "metrics.jsonl"
        self.enabled = enabled
        self.last_step = -math.inf

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        """Append an event."""
        if not self.enabled:
            return
        line = json.dumps({"event": event, **values}, allow_nan=False)
        with write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write_step(self, **values: Any) -> None:
        """Append a step event, unless the last one is less than STEP_RECORD_SECONDS old."""
        now = time.monotonic()
        if now - self.last_step >= STEP_RECORD_SECONDS:
            self.last_step = now
            self.write("step", values)

    def resume(self, progress: RunProgress, *, processes: int) -> None:
        """Remove events after the position where a run resumes, and append a resume event."""
        if not self.enabled:
            return
        position = {"epoch": progress.epoch, "step": progress.step}
        lines = []
        for line in read_metrics(self.path.parent):
            reached = (line.get("epoch", 0), line.get("step", math.inf))
            is_later = line["event"] in ("step", "epoch") and reached > tuple(position.values())
            if not is_later and line["event"] != "end":
                lines.append(json.dumps(line, allow_nan=False) + "\n")
        write_text(self.path, "".join(lines))
        self.write("resume", {**_environment(processes), **position})


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl; none if there is no file."""
    path, lines = folder / "metrics.jsonl", []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:  # partial, after a kill
            continue
        if isinstance(line, dict) and "event" in line:
            lines.append(line)
    return lines
