"""From what the data and the machine are to the settings of a run, each with its reason.

A pure function. It gives CamVid (367 images of 360x480) what was measured to reach 66.4 % mIoU:
crop 352x480, batch 8, 24 epochs, no class weights. Others decide likewise: nnU-Net
(arXiv:1809.10486) gives every data set the same number of steps, and fits patch and batch to the
memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.data.dataset_statistics import CROP_MULTIPLE, usual_crop
from pixelwise.planning.machine import Machine

CROP = "augmentation.crop"
BATCH_SIZE = "batch_size"
EPOCHS = "epochs"
CLASS_WEIGHTS = "loss.class_weights"
PLANNED = (CROP, BATCH_SIZE, EPOCHS, CLASS_WEIGHTS)
"""The keys of the recipe that may be `auto`, in the order in which they are decided."""

USABLE = 0.5
"""Share of the memory to plan with; the rest is for the images, the system and others."""
MAX_BATCH = 8
"""A larger one would ask for another learning rate."""
BATCHES_AN_EPOCH = 4
"""Batches an epoch, at least: one batch for all would hardly differ from epoch to epoch."""
STEPS = 1104
"""24 epochs of CamVid in batches of 8."""
LEAST_EPOCHS, LEAST_EPOCHS_GPU, MOST_EPOCHS = 12, 24, 200
DOMINANT = 0.9
"""Share of the largest class from which the others are given more weight."""


@dataclass(frozen=True)
class DatasetStats:
    """What is asked of a data set.

    train: images to train on. pixels: (C,) of them, by class. sizes: (height, width) of all images.
    """

    train: int
    sizes: Sequence[tuple[int, int]]
    pixels: Sequence[int]


@dataclass(frozen=True)
class Network:
    """The memory that a network takes in training: bytes whatever the batch, and for each pixel.

    The default is DeepLabV3+ on MobileNetV2 at output stride 16, float32: the peak of the process
    for batches of 2 and 4 of 352x480 on a CPU.
    """

    base: int = 460 << 20
    per_pixel: float = 3100.0

    def batch_within(self, memory: int, crop: tuple[int, int]) -> int:
        """The largest batch for which the usable part of `memory` suffices; may be 0."""
        each = self.per_pixel * crop[0] * crop[1]
        return max(0, int((memory * USABLE - self.base) // each))


@dataclass(frozen=True)
class Choice:
    """A value for a key of the recipe, and why."""

    key: str
    value: Any
    reason: str


def make_plan(
    dataset_stats: DatasetStats,
    machine: Machine,
    *,
    given: Mapping[str, Any] | None = None,
    network: Network | None = None,
    processes: int = 1,
) -> list[Choice]:
    """A choice for each key of PLANNED that is not `given`, which the others take account of.

    processes: that each batch is shared out over; GPUs have `machine.gpu_memory` each.
    Crops come as (height, width), class weights as "none" or (C,) numbers.
    """
    given, network = given or {}, network or Network()
    choices = []
    crop = given.get(CROP)
    if crop is None:
        choices.append(_crop(dataset_stats, machine, network))
        crop = choices[-1].value
    batch = given.get(BATCH_SIZE)
    if batch is None:
        choices.append(_batch(dataset_stats, machine, network, crop, processes))
        batch = choices[-1].value
    if EPOCHS not in given:
        choices.append(_epochs(dataset_stats, machine, batch))
    if CLASS_WEIGHTS not in given:
        choices.append(_class_weights(dataset_stats))
    return choices


def _crop(dataset_stats: DatasetStats, machine: Machine, network: Network) -> Choice:
    height, width = usual_crop(dataset_stats.sizes)
    reason = "the images' usual size, in steps of 32, at most 512 a side"
    memory = machine.training_memory
    while memory is not None and network.batch_within(memory, (height, width)) < 2:
        if max(height, width) <= CROP_MULTIPLE:
            break
        reason = f"what fits twice into {_gib(memory)} of memory"
        if height >= width:
            height = _halved(height)
        else:
            width = _halved(width)
    return Choice(CROP, (height, width), reason)


def _halved(side: int) -> int:
    return max(CROP_MULTIPLE, side // 2 // CROP_MULTIPLE * CROP_MULTIPLE)


def _batch(
    dataset_stats: DatasetStats,
    machine: Machine,
    network: Network,
    crop: tuple[int, int] | str,
    processes: int,
) -> Choice:
    """A power of two from 2, which batch normalization needs, or the multiple of the processes
    below it; 1 for whole images."""
    if isinstance(crop, str):
        return Choice(BATCH_SIZE, 1, "whole images differ in size")
    memory = machine.training_memory
    room = MAX_BATCH if memory is None else network.batch_within(memory, crop)
    if machine.gpu_memory is not None:
        room *= processes
    few = dataset_stats.train // BATCHES_AN_EPOCH
    limit = max(2, min(room, MAX_BATCH, few))
    batch = 1 << (limit.bit_length() - 1)
    batch = max(1, batch // processes) * processes
    if few < min(room, MAX_BATCH):
        reason = f"several steps an epoch with {dataset_stats.train} images to train on"
        return Choice(BATCH_SIZE, batch, reason)
    each = network.per_pixel * crop[0] * crop[1]
    reason = f"about {each / 2**20:.0f} MiB an image"
    if memory is not None:
        reason += f", {_gib(memory)} of memory{' on the GPU' if machine.gpu_memory else ''}"
    if room >= MAX_BATCH:
        reason += "; a larger one asks for another learning rate"
    return Choice(BATCH_SIZE, batch, reason)


def _epochs(dataset_stats: DatasetStats, machine: Machine, batch: int) -> Choice:
    steps = max(1, -(-dataset_stats.train // batch))
    least = LEAST_EPOCHS_GPU if machine.gpu else LEAST_EPOCHS
    wanted = round(STEPS / steps)
    epochs = min(MOST_EPOCHS, max(least, wanted))
    reason = f"{steps} steps each, {epochs * steps:,} in all"
    if wanted > MOST_EPOCHS:
        reason += f"; about {STEPS:,} would do, but no image is shown more than {MOST_EPOCHS} times"
    elif wanted < least:
        reason += f"; each image is shown at least {least} times"
    else:
        reason += f"; about {STEPS:,} are known to do"
    return Choice(EPOCHS, epochs, reason)


def _class_weights(dataset_stats: DatasetStats) -> Choice:
    """More for the rare ones where one class has nearly all of the pixels."""
    pixels = np.array(dataset_stats.pixels, dtype=np.int64)
    present = pixels[pixels > 0]
    if len(present) < 2:
        return Choice(CLASS_WEIGHTS, "none", "one class alone has pixels")
    largest = float(present.max() / present.sum())
    if largest < DOMINANT:
        return Choice(
            CLASS_WEIGHTS,
            "none",
            f"the largest class has {100 * largest:.0f} % of the pixels; they are planned from "
            f"{100 * DOMINANT:.0f} % on",
        )
    return Choice(
        CLASS_WEIGHTS,
        "root_median_frequency",
        f"the largest class has {100 * largest:.1f} % of the pixels: the others would hardly count",
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
