"""Choose the settings of a run from the data and the machine, each with a reason.

This is a pure function. For CamVid (367 images of 360x480) it gives the settings that were measured
to reach 66.4 % mIoU: crop 352x480, batch size 8, 24 epochs, no class weights. nnU-Net
(arXiv:1809.10486) plans similarly: it trains every dataset for the same number of steps and fits
patch and batch size to the memory.
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
"""The recipe keys that the plan can choose, in the order in which it chooses them."""

USABLE = 0.5
"""Fraction of the memory to plan with; images, the system and other programs use the rest."""
MAX_BATCH = 8
"""A larger batch would need another learning rate."""
MIN_STEPS_PER_EPOCH = 4
"""With one batch per epoch, epochs would hardly differ."""
STEPS = 1104
"""24 epochs of CamVid in batches of 8."""
MIN_EPOCHS, MIN_EPOCHS_GPU, MAX_EPOCHS = 12, 24, 200
DOMINANT = 0.9
"""If one class covers at least this fraction of the pixels, class weights are used."""


@dataclass(frozen=True)
class DatasetStats:
    """The properties of a dataset that the plan depends on.

    Attributes:
        train: Number of training images.
        sizes: (height, width) of all images.
        pixels: Number of training pixels of each class (C,).
    """

    train: int
    sizes: Sequence[tuple[int, int]]
    pixels: Sequence[int]


@dataclass(frozen=True)
class Network:
    """The memory that training a network takes.

    The defaults are for DeepLabV3+ on MobileNetV2 at output stride 16 in float32: the peak memory
    of the process for batches of 2 and 4 of 352x480 on a CPU.

    Attributes:
        base: Bytes that do not depend on the batch.
        per_pixel: Bytes per pixel of the batch.
    """

    base: int = 460 << 20
    per_pixel: float = 3100.0

    def max_batch(self, memory: int, crop: tuple[int, int]) -> int:
        """Return the largest batch that fits into the usable part of `memory`; may be 0."""
        per_image = self.per_pixel * crop[0] * crop[1]
        return max(0, int((memory * USABLE - self.base) // per_image))


@dataclass(frozen=True)
class PlannedValue:
    """The value of a recipe key and the reason for it."""

    key: str
    value: Any
    reason: str


def make_plan(
    dataset_stats: DatasetStats,
    machine: Machine,
    *,
    fixed: Mapping[str, Any] | None = None,
    network: Network | None = None,
    processes: int = 1,
) -> list[PlannedValue]:
    """Choose a value for each key of PLANNED that is not fixed.

    Args:
        dataset_stats: The dataset.
        machine: The machine; each GPU has `machine.gpu_memory`.
        fixed: Values that the recipe sets. The chosen ones take them into account.
        network: The memory that the network takes. None: the default network's.
        processes: Number of processes that share each batch.

    Returns:
        The values. A crop is (height, width); class weights are the name of a rule.
    """
    fixed, network = fixed or {}, network or Network()
    plan = []
    crop = fixed.get(CROP)
    if crop is None:
        plan.append(_plan_crop(dataset_stats, machine, network))
        crop = plan[-1].value
    batch = fixed.get(BATCH_SIZE)
    if batch is None:
        plan.append(_plan_batch(dataset_stats, machine, network, crop, processes))
        batch = plan[-1].value
    if EPOCHS not in fixed:
        plan.append(_plan_epochs(dataset_stats, machine, batch))
    if CLASS_WEIGHTS not in fixed:
        plan.append(_plan_class_weights(dataset_stats))
    return plan


def _plan_crop(dataset_stats: DatasetStats, machine: Machine, network: Network) -> PlannedValue:
    height, width = usual_crop(dataset_stats.sizes)
    reason = "the median image size, in multiples of 32, at most 512 per side"
    memory = machine.training_memory
    while memory is not None and network.max_batch(memory, (height, width)) < 2:
        if max(height, width) <= CROP_MULTIPLE:
            break
        reason = f"two crops of this size fit into {_gib(memory)} of memory"
        if height >= width:
            height = _halve(height)
        else:
            width = _halve(width)
    return PlannedValue(CROP, (height, width), reason)


def _halve(side: int) -> int:
    return max(CROP_MULTIPLE, side // 2 // CROP_MULTIPLE * CROP_MULTIPLE)


def wanted_batch(train: int, processes: int) -> int:
    """Return the batch size for this number of training images if the memory is large enough."""
    limit = max(2, min(MAX_BATCH, train // MIN_STEPS_PER_EPOCH))
    batch = 1 << (limit.bit_length() - 1)
    return max(1, batch // processes) * processes


def _plan_batch(
    dataset_stats: DatasetStats,
    machine: Machine,
    network: Network,
    crop: tuple[int, int] | str,
    processes: int,
) -> PlannedValue:
    """Choose a power of two of at least 2, which batch normalization needs.

    With several processes it is the next lower multiple of their number; uncropped images come one
    by one.
    """
    if isinstance(crop, str):
        return PlannedValue(BATCH_SIZE, 1, "uncropped images differ in size")
    memory = machine.training_memory
    fitting = MAX_BATCH if memory is None else network.max_batch(memory, crop)
    if machine.gpu_memory is not None:
        fitting *= processes
    by_images = dataset_stats.train // MIN_STEPS_PER_EPOCH
    limit = max(2, min(fitting, MAX_BATCH, by_images))
    batch = 1 << (limit.bit_length() - 1)
    batch = max(1, batch // processes) * processes
    if by_images < min(fitting, MAX_BATCH):
        reason = f"several steps per epoch with {dataset_stats.train} training images"
        return PlannedValue(BATCH_SIZE, batch, reason)
    per_image = network.per_pixel * crop[0] * crop[1]
    reason = f"about {per_image / 2**20:.0f} MiB per image"
    if memory is not None:
        reason += f", {_gib(memory)} of memory{' on the GPU' if machine.gpu_memory else ''}"
    if fitting >= MAX_BATCH:
        reason += "; a larger batch would need another learning rate"
    return PlannedValue(BATCH_SIZE, batch, reason)


def _plan_epochs(dataset_stats: DatasetStats, machine: Machine, batch: int) -> PlannedValue:
    steps = max(1, -(-dataset_stats.train // batch))
    minimum = MIN_EPOCHS_GPU if machine.gpu else MIN_EPOCHS
    wanted = round(STEPS / steps)
    epochs = min(MAX_EPOCHS, max(minimum, wanted))
    reason = f"{steps} steps per epoch, {epochs * steps:,} in total"
    if wanted > MAX_EPOCHS:
        reason += f"; about {STEPS:,} would be better, but {MAX_EPOCHS} epochs are the maximum"
    elif wanted < minimum:
        reason += f"; {minimum} epochs are the minimum"
    else:
        reason += f"; about {STEPS:,} steps have proven sufficient"
    return PlannedValue(EPOCHS, epochs, reason)


def _plan_class_weights(dataset_stats: DatasetStats) -> PlannedValue:
    """Give rare classes larger weights if one class covers nearly all pixels."""
    pixels = np.array(dataset_stats.pixels, dtype=np.int64)
    present = pixels[pixels > 0]
    if len(present) < 2:
        return PlannedValue(CLASS_WEIGHTS, "none", "only one class has pixels")
    largest = float(present.max() / present.sum())
    if largest < DOMINANT:
        return PlannedValue(
            CLASS_WEIGHTS,
            "none",
            f"the largest class has {100 * largest:.0f} % of the pixels; weights are used from "
            f"{100 * DOMINANT:.0f} %",
        )
    return PlannedValue(
        CLASS_WEIGHTS,
        "root_median_frequency",
        f"the largest class has {100 * largest:.1f} % of the pixels and would dominate the loss",
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
