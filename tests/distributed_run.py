"""Run a function in several processes of one run and collect their reports, for
test_distributed.py."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import pixelwise.layers.norm
from pixelwise.backbones.tiny import Tiny
from pixelwise.data.classes import IGNORE
from pixelwise.distributed.collectives import all_reduce_sum
from pixelwise.distributed.shard import BatchShard, use_shard
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.models import Segmenter, create_model
from pixelwise.models.fcn_resnet import FCNHead
from pixelwise.models.registry import MODELS, ModelEntry, Variant
from pixelwise.recipes.loss_terms import parse_terms
from pixelwise.training import Callback, Run, load_recipe, resume, train
from pixelwise.training.loading import BatchOrder
from pixelwise.training.losses import pixel_losses
from pixelwise.training.losses.registry import LOSSES

PATIENCE = 60


def little(*, num_classes: int, in_channels: int = 3) -> Segmenter:
    """torchvision's FCN on five convolutions, with batch norm, dropout and an auxiliary head.

    Without a global pooling there is no batch norm that amplifies rounding.
    """
    backbone = Tiny(output_stride=8, in_channels=in_channels)
    heads = (
        FCNHead(backbone.channels[source], num_classes=num_classes, source=source)
        for source in ("c5", "c4")
    )
    return Segmenter(backbone, next(heads), auxiliary=next(heads))


MODELS["little"] = ModelEntry(little, "little", "", (Variant("tiny", 8),))


@dataclass
class Report:
    """The result of a process, or the exit code and the problems of its PixelwiseError."""

    rank: int
    value: Any = None
    exit_code: int = 0
    problems: tuple[str, ...] = ()


def by_torchrun(rank: int, count: int) -> dict[str, int]:
    """The rank variables of torchrun."""
    return {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count}


def by_slurm(rank: int, count: int) -> dict[str, int]:
    """The rank variables of srun, on one machine."""
    return {
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank,
        "SLURM_NODEID": 0,
        "SLURM_NTASKS": count,
        "SLURM_NTASKS_PER_NODE": count,
        "SLURM_NNODES": 1,
        "SLURM_STEP_NUM_TASKS": count,
        "SLURM_STEP_NUM_NODES": 1,
        "SLURM_JOB_ID": 7,
    }


def run_processes(
    context: Any,
    count: int,
    work: Callable[..., Any],
    *arguments: Any,
    started_by: Callable[[int, int], dict[str, int]] = by_torchrun,
) -> list[Report]:
    """Run `work(*arguments)` in `count` connected processes; return their reports by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reports = context.Queue()
    started = []
    for rank in range(count):
        process = context.Process(
            target=_reporting, args=(rank, started_by(rank, count), port, reports, work, arguments)
        )
        process.start()
        started.append(process)
    try:
        return sorted((reports.get(timeout=PATIENCE) for _ in started), key=lambda r: r.rank)
    finally:
        for process in started:
            process.join(timeout=PATIENCE)
            process.kill()


def _reporting(
    rank: int,
    numbers: dict[str, int],
    port: int,
    reports: Any,
    work: Callable[..., Any],
    arguments: Any,
) -> None:
    torch.set_num_threads(1)
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    report = Report(rank)
    try:
        report.value = work(*arguments)
    except PixelwiseError as error:
        report.exit_code, report.problems = error.exit_code, error.problems
    except Exception as error:
        report.exit_code, report.problems = -1, (repr(error),)
        raise
    finally:
        reports.put(report)


# --- Runs


@dataclass
class Recorder(Callback):
    """Record the losses and the numbers of images."""

    losses: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        self.losses.append(loss)
        self.images.append(images)


def run_training(
    data: Path, out: Path, settings: dict[str, Any], fault: str = "", at: int = 0
) -> tuple[list[float], list[int], list[dict[str, Any]]]:
    """Train, or resume if there is a checkpoint.

    Returns the losses and numbers of images of the steps, and the rows of the epochs. `fault` is
    something that goes wrong, in some cases before step `at`.
    """
    recorder = Recorder()
    _break(fault, at)
    if any((out / "checkpoints").glob("step-*.safetensors")):
        run: Run = resume(out, callback=recorder)
    else:
        run = train(data, out, load_recipe(None, settings), callback=recorder)
    return recorder.losses, recorder.images, run.history


def _break(fault: str, at: int) -> None:
    if fault == "batch norm per process":
        pixelwise.layers.norm.sync_batch_norm = _batch_norm_of_the_shard
    elif fault == "mean per process":
        pixel_losses._reduce = _mean_of_means
    elif fault == "dropout per process":
        pixelwise.layers.Dropout.forward = nn.Dropout.forward  # type: ignore[method-assign]
    elif fault:
        kind, _, rank = fault.rpartition(" ")
        if rank == os.environ.get("RANK", "0"):
            BatchOrder.shard = _before(BatchOrder.shard, at, FAULTS[kind])  # type: ignore[method-assign]


def _batch_norm_of_the_shard(norm: nn.BatchNorm2d, x: Tensor, shard: BatchShard) -> Tensor:
    return nn.BatchNorm2d.forward(norm, x)


def _mean_of_means(
    summed: Tensor, labels: Tensor, weights: Tensor | None, reduction: str
) -> Tensor:
    valid = (labels != IGNORE).sum().clamp(min=1)
    return all_reduce_sum(summed / valid) / dist.get_world_size()


def _before(
    function: Callable[..., Any], at: int, action: Callable[[], None]
) -> Callable[..., Any]:
    """Return the function with `action` before its `at`-th call."""
    calls = iter(range(1, 1000))

    def armed(*arguments: Any) -> Any:
        if next(calls) == at:
            action()
        return function(*arguments)

    return armed


def _bad_image() -> None:
    raise InputError("b.png: is damaged")


FAULTS: dict[str, Callable[[], None]] = {
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "signal": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "bad image": _bad_image,
}


# --- One pass


def one_pass(loss: str, images: int, network: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return loss, gradients, running statistics and random state after a training pass.

    It is in double precision, where rounding hides nothing.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    model = create_model(network, num_classes=4, **options).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = torch.randn(images, 3, 33, 49)
    labels = torch.randint(0, 4, (images, 33, 49)).to(torch.uint8)
    labels[0], labels[-1, :20] = IGNORE, IGNORE
    recipe = load_recipe(None, {"loss.name": loss, "loss.class_weights": [1, 2, 3, 0.5]})
    terms = [(term.factor, LOSSES[term.name](recipe.loss)) for term in parse_terms(loss)]
    weights = torch.tensor([1, 2, 3, 0.5])
    shard = BatchShard(rank, count, images)
    if count > 1:
        dist.init_process_group("gloo")
    with use_shard(shard) if count > 1 else nullcontext():
        outputs = model.training_logits(batch[shard.own])
        value = torch.stack(
            [f * term(out, labels[shard.own], weights) for out in outputs for f, term in terms]
        ).sum()
    value.backward()
    gradients = {name: p.grad.contiguous() for name, p in model.named_parameters()}
    for gradient in gradients.values():
        if count > 1:
            dist.all_reduce(gradient)
    found = {"loss": value.detach(), "random": torch.get_rng_state(), **gradients}
    found |= {name: tensor for name, tensor in model.named_buffers() if "running" in name}
    return {name: tensor.numpy() for name, tensor in found.items()}
