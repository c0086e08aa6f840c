"""Choose backbone, crop, epochs and batch size so that a run fits a number of minutes.

This is a pure function of speeds that `pixelwise.training.time_budget` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pixelwise.data.dataset_statistics import CROP_MULTIPLE
from pixelwise.errors import InputError
from pixelwise.progress import duration

Crop = tuple[int, int]

OVERHEAD = 1.15
"""A step takes longer than the measured passes: augmentation, the update, checkpoints."""
VALIDATION = 0.4
"""Time to predict a pixel, relative to that of training on it."""
MIN_STEPS = 300
"""With fewer steps, a faster network or smaller crops and more steps give better masks."""
ENOUGH_STEPS = 550
"""With fewer steps, smaller batches and more steps give better masks: see docs/ablation.md."""
SMALL_BATCH = 4
"""Batches are not made smaller than this, because of batch normalization."""
MAX_EPOCHS = 1000


@dataclass(frozen=True)
class Workload:
    """What an epoch consists of.

    Attributes:
        train: Number of training images.
        batch: Images per step, at most.
        val: Number of validation images.
        val_pixels: Mean number of pixels of a validation image.
        smallest_batch: Images per step, at least.
    """

    train: int
    batch: int
    val: int
    val_pixels: float
    smallest_batch: int = SMALL_BATCH

    def steps(self, epochs: int) -> int:
        """Return the number of steps, with the batch size that is chosen for so many epochs."""
        return epochs * -(-self.train // self.batch_size(epochs))

    def batch_size(self, epochs: int) -> int:
        """Return the batch size, which is halved until there are enough steps."""
        batch = self.batch
        while batch // 2 >= self.smallest_batch and (
            epochs * -(-self.train // batch) < ENOUGH_STEPS
        ):
            batch //= 2
        return batch

    def epoch_seconds(self, crop: Crop, seconds: float) -> float:
        """Return the time of an epoch if a training image of size `crop` takes `seconds`."""
        per_pixel = seconds / (crop[0] * crop[1])
        validation = self.val * self.val_pixels * per_pixel * VALIDATION
        return OVERHEAD * self.train * seconds + validation


@dataclass(frozen=True)
class TimePlan:
    """The settings that fit, and the reason for the number of epochs."""

    backbone: str
    crop: Crop
    epochs: int
    batch_size: int
    reason: str


def fit_minutes(
    minutes: float,
    workload: Workload,
    *,
    backbones: Sequence[str],
    crops: Sequence[Crop],
    measure: Callable[[str, Crop], float],
) -> TimePlan:
    """Choose the first pair of backbone and crop that allows MIN_STEPS steps.

    All backbones are tried with the first crop, then with the next. If no pair allows as many
    steps, the fastest one is chosen.

    Args:
        minutes: Time for training and validation.
        workload: What an epoch consists of.
        backbones: Backbones to choose from, the best first.
        crops: Crops to choose from, the largest first.
        measure: Returns the seconds of a training image for a backbone and a crop.

    Raises:
        InputError: If not even one epoch of the fastest pair fits.
    """
    plans: list[tuple[float, str, Crop]] = []
    for crop in crops:
        for backbone in backbones:
            epoch = workload.epoch_seconds(crop, measure(backbone, crop))
            plans.append((epoch, backbone, crop))
            if workload.steps(int(60 * minutes / epoch)) >= MIN_STEPS:
                return _plan(minutes, workload, *plans[-1])
    fastest = min(plans)
    if 60 * minutes < fastest[0]:
        needed = duration(fastest[0])
        raise InputError(f"minutes = {minutes:g}: one epoch takes about {needed}: give more time")
    return _plan(minutes, workload, *fastest)


def smaller_crops(crop: Crop, *, count: int = 2) -> list[Crop]:
    """Return a crop and those with its longer side halved, again and again."""
    crops = [crop]
    for _ in range(count):
        height, width = crops[-1]
        if max(height, width) < 4 * CROP_MULTIPLE:
            break
        if height >= width:
            crops.append((height // 2 // CROP_MULTIPLE * CROP_MULTIPLE, width))
        else:
            crops.append((height, width // 2 // CROP_MULTIPLE * CROP_MULTIPLE))
    return crops


def _plan(
    minutes: float, workload: Workload, epoch_seconds: float, backbone: str, crop: Crop
) -> TimePlan:
    epochs = min(MAX_EPOCHS, int(60 * minutes / epoch_seconds))
    reason = f"an epoch takes about {duration(epoch_seconds)}, measured; {minutes:g} minutes"
    if epochs == MAX_EPOCHS:
        reason += f"; {MAX_EPOCHS} epochs are the maximum"
    return TimePlan(backbone, crop, epochs, workload.batch_size(epochs), reason)
