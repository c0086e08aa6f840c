"""One run: a checked data set and a recipe in, a folder with bundles and metrics out.

RUN/recipe.toml          the resolved recipe
RUN/data.json            the splits, the classes, and what was assumed
RUN/metrics.jsonl        one JSON object a line: start, step, epoch, end
RUN/best.safetensors     the bundle of the epoch with the highest val mIoU
RUN/last.safetensors     the bundle of the last finished epoch
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import pixelwise
from pixelwise.checkpoints import Bundle, Normalisation
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.transforms import Augmentation
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.evaluation import Evaluation, evaluate
from pixelwise.files import atomic, make_folder
from pixelwise.inference import Predictor
from pixelwise.models import Segmenter, backbone_name, count_parameters
from pixelwise.training.events import Listener
from pixelwise.training.layout import LAYOUTS, LayoutChoice, choose_layout
from pixelwise.training.loading import (
    AugmentedSplit,
    BatchOrder,
    auto_crop,
    auto_workers,
    make_loader,
)
from pixelwise.training.losses import class_weights, cross_entropy
from pixelwise.training.recipe import Recipe
from pixelwise.training.start import Start, make_start

STEP_RECORD_SECONDS = 10.0


class TrainingError(PixelwiseError):
    """A run that cannot go on, though what was given was usable."""


@dataclass
class Run:
    """A finished run.

    evaluation: of the best epoch on val. history: the epoch rows of metrics.jsonl.
    """

    folder: Path
    recipe: Recipe
    data: SegmentationData
    normalisation: Normalisation
    facts: dict[str, str]
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    evaluation: Evaluation | None = None

    @property
    def best(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.folder / "last.safetensors"


def train(
    root: Path,
    out: Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Run:
    """Train on the folder `root` and write the run into `out`.

    Everything is checked before the first step and before `out` is made. Raises InputError for bad
    data, recipe or folder; TrainingError where the loss stops being finite.
    """
    listener = listener or Listener()
    _refuse_used(out, overwrite=overwrite)
    data = open_dataset(
        root,
        splits=("train", "val"),
        val_fraction=recipe.data.val_fraction,
        seed=recipe.seed,
        cache_bytes=recipe.data.cache_mib << 20,
        progress=listener.checking,
    )
    weights = class_weights(recipe.loss, data.pixel_counts["train"])
    fabric = _fabric(recipe)
    fabric.seed_everything(recipe.seed, verbose=False)
    start = make_start(recipe.model, data.classes)
    make_folder(out)
    _clear(out)

    crop = recipe.augmentation.crop
    usual = auto_crop(data) if isinstance(crop, str) else crop
    if crop == "auto":
        crop = usual
    if recipe.layout == "auto":
        layout = choose_layout(
            start.model, crop=usual, num_classes=len(data.classes), device=fabric.device
        )
    else:
        layout = LayoutChoice(recipe.layout, "as the recipe says")
    recipe = recipe.resolved(crop=crop, layout=layout.name)
    facts = _facts(data, start, recipe, layout, fabric.device)
    run = Run(out, recipe, data, start.normalisation, facts)
    _write_start(run, layout)
    listener.planned(run.facts)
    _epochs(run, start.model, fabric, weights=weights, listener=listener)
    return run


def _epochs(
    run: Run,
    model: Segmenter,
    fabric: Fabric,
    *,
    weights: Tensor | None,
    listener: Listener,
) -> None:
    recipe, data, normalisation = run.recipe, run.data, run.normalisation
    memory_format = LAYOUTS[recipe.layout]
    order = BatchOrder(len(data.splits["train"]), batch_size=recipe.batch_size, seed=recipe.seed)
    crop = recipe.augmentation.crop
    augmentation = Augmentation(
        crop=None if isinstance(crop, str) else crop,
        scale=recipe.augmentation.scale,
        flip=recipe.augmentation.flip,
        brightness=recipe.augmentation.brightness,
        contrast=recipe.augmentation.contrast,
        saturation=recipe.augmentation.saturation,
        fill=normalisation.fill(),
    )
    workers = recipe.data.workers
    if workers == "auto":
        workers = auto_workers(fabric.device)
    loader = make_loader(
        AugmentedSplit(data, "train", augmentation, seed=recipe.seed), order, workers=workers
    )
    model.to(memory_format=memory_format)  # type: ignore[call-overload]
    network, optimizer = fabric.setup(model, make_optimizer(model, recipe))
    network.mark_forward_method("with_auxiliary")
    accumulate = min(recipe.optimizer.accumulate, len(order))
    updates = -(-len(order) // accumulate)
    schedule = make_schedule(optimizer, recipe, steps=recipe.epochs * updates)
    weights = None if weights is None else weights.to(fabric.device)
    loss_of = partial(cross_entropy, weights=weights, reduction=recipe.loss.reduction)
    metrics = _Metrics(run.folder / "metrics.jsonl")
    best = -1.0

    for epoch in range(1, recipe.epochs + 1):
        order.epoch = epoch
        network.train()
        started = time.perf_counter()
        loss_sum = torch.zeros((), device=fabric.device)
        rate = schedule.get_last_lr()[0]
        for step, (images, labels) in enumerate(loader, start=1):
            images = images.to(fabric.device).contiguous(memory_format=memory_format)
            labels = labels.to(fabric.device)
            logits, *auxiliary = network.with_auxiliary(normalisation(images))
            loss = loss_of(logits.float(), labels)
            for extra in auxiliary:
                loss = loss + recipe.loss.auxiliary_weight * loss_of(extra.float(), labels)
            if (step - 1) % accumulate == 0:
                optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss / accumulate)
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss is {value} in epoch {epoch}, step {step}: lower "
                    f"optimizer.learning_rate (it is {recipe.optimizer.learning_rate:g}); the "
                    f"bundles of earlier epochs in {run.folder} are whole"
                )
            if step % accumulate == 0 or step == len(order):
                optimizer.step()
                schedule.step()
            loss_sum += loss.detach()
            metrics.step(epoch=epoch, step=step, loss=value)
            listener.step(epoch=epoch, step=step, steps=len(order), loss=value, images=len(images))
        seconds = time.perf_counter() - started

        predictor = Predictor(model, data.classes, normalisation, device=fabric.device)
        evaluation = evaluate(predictor, data, "val", progress=listener.validating)
        scores = evaluation.scores
        row = {
            "epoch": epoch,
            "loss": float(loss_sum) / len(order),
            "learning_rate": rate,
            "val_mean_iou": None if math.isnan(scores.mean_iou) else scores.mean_iou,
            "val_pixel_accuracy": (
                None if math.isnan(scores.pixel_accuracy) else scores.pixel_accuracy
            ),
            "seconds": round(seconds, 3),
            "val_seconds": round(time.perf_counter() - started - seconds, 3),
            "images_per_second": round(order.count / seconds, 3),
        }
        bundle = _bundle(model, run, epoch=epoch, evaluation=evaluation)
        bundle.save(run.last)
        if scores.mean_iou > best or run.best_epoch == 0:
            best = scores.mean_iou if not math.isnan(scores.mean_iou) else best
            run.best_epoch, run.evaluation = epoch, evaluation
            bundle.save(run.best)
        run.history.append(row)
        metrics.write("epoch", row)
        listener.epoch_ended(row)
    metrics.write("end", {"best_epoch": run.best_epoch})


def make_optimizer(model: Segmenter, recipe: Recipe) -> torch.optim.SGD:
    """SGD with the heads' rates multiples of the backbone's; only convolution kernels decay."""
    rates = recipe.optimizer
    parts = [
        (model.backbone, rates.learning_rate),
        (model.head, rates.learning_rate * rates.head_multiplier),
    ]
    if model.auxiliary is not None:
        parts.append((model.auxiliary, rates.learning_rate * rates.auxiliary_multiplier))
    groups = []
    for part, rate in parts:
        kernels: list[nn.Parameter] = []
        biases: list[nn.Parameter] = []
        norms: list[nn.Parameter] = []
        for module in part.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if isinstance(module, nn.BatchNorm2d):
                    norms.append(parameter)
                else:
                    (biases if name == "bias" else kernels).append(parameter)
        groups += [
            {"params": kernels, "lr": rate, "weight_decay": rates.weight_decay},
            {"params": biases, "lr": rate * rates.bias_multiplier, "weight_decay": 0.0},
            {"params": norms, "lr": rate, "weight_decay": 0.0},
        ]
    return torch.optim.SGD(groups, momentum=rates.momentum)


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, *, steps: int
) -> torch.optim.lr_scheduler.PolynomialLR:
    """The poly rate of DeepLab v2 (arXiv:1606.00915, section 4.1), stepped after each batch."""
    return torch.optim.lr_scheduler.PolynomialLR(
        optimizer, total_iters=steps, power=recipe.optimizer.power
    )


def _fabric(recipe: Recipe) -> Fabric:
    try:
        return Fabric(accelerator=recipe.device, devices=1, precision=recipe.precision)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device = {recipe.device!r}: cannot be used here ({reason})") from error


def _bundle(model: nn.Module, run: Run, *, epoch: int, evaluation: Evaluation) -> Bundle:
    return Bundle(
        model=run.recipe.model.name,
        options=run.recipe.model.options,
        classes=run.data.classes,
        normalisation=run.normalisation,
        weights=model.state_dict(),
        recipe=run.recipe.to_json(),
        scores={
            "split": "val",
            "epoch": epoch,
            **evaluation.scores.to_json(run.data.classes.names),
        },
    )


RUN_FILES = ("recipe.toml", "data.json", "metrics.jsonl", "best.safetensors", "last.safetensors")


def _refuse_used(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file: give a folder for the run with --out")
    if out.is_dir() and not overwrite and any((out / name).exists() for name in RUN_FILES):
        raise InputError(f"{out}: holds a run already: choose another --out, or add --overwrite")


def _clear(out: Path) -> None:
    """Remove an earlier run's files, so that none of them is taken for one of this run."""
    for name in (*RUN_FILES, "report.html"):
        (out / name).unlink(missing_ok=True)


def _facts(
    data: SegmentationData,
    start: Start,
    recipe: Recipe,
    layout: LayoutChoice,
    device: torch.device,
) -> dict[str, str]:
    counts = ", ".join(f"{split} {len(samples)}" for split, samples in data.splits.items())
    model = recipe.model
    options = {"backbone": backbone_name(model.name, model.options), **model.options}
    shown_options = ", ".join(f"{key} {value}" for key, value in options.items())
    crop = recipe.augmentation.crop
    shown = "whole images" if isinstance(crop, str) else f"crop {crop[0]}x{crop[1]}"
    return {
        "data": f"{data.root} ({counts})",
        "classes": ", ".join(data.classes.names),
        "assumed": "; ".join(data.notes),
        "model": f"{model.name} ({shown_options}), {count_parameters(start.model):,} parameters, "
        f"from {start.origin}",
        "steps": f"{recipe.epochs} epochs, batch {recipe.batch_size}, {shown}",
        "device": _device_name(device),
        "layout": f"{layout.name}: {layout.reason}",
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _write_start(run: Run, layout: LayoutChoice) -> None:
    _write_text(run.folder / "recipe.toml", run.recipe.to_toml())
    splits = {
        split: [{"name": s.name, "image": str(s.image), "mask": str(s.mask.path)} for s in samples]
        for split, samples in run.data.splits.items()
    }
    about = {
        "root": str(run.data.root.resolve()),
        "layout": run.data.layout,
        "notes": run.data.notes,
        "classes": run.data.classes.to_json(),
        "splits": splits,
    }
    _write_text(run.folder / "data.json", json.dumps(about, indent=1) + "\n")
    _Metrics(run.folder / "metrics.jsonl").write(
        "start",
        {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "pixelwise": pixelwise.__version__,
            "torch": torch.__version__,
            "machine": f"{platform.system()} {platform.machine()}",
            "threads": torch.get_num_threads(),
            "layout": layout.name,
            "layout_reason": layout.reason,
        },
    )


def _write_text(path: Path, text: str) -> None:
    with atomic(path) as side:
        side.write_text(text, encoding="utf-8")


class _Metrics:
    """Lines of JSON, appended and flushed one by one; a reader may meet a torn last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_step = -math.inf

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        line = json.dumps({"event": event, **values}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def step(self, **values: Any) -> None:
        """Record a step, unless one was recorded a moment ago."""
        now = time.monotonic()
        if now - self.last_step >= STEP_RECORD_SECONDS:
            self.last_step = now
            self.write("step", values)
