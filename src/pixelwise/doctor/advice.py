"""Settings for `train` that follow from what was seen, each with the flag and the reason."""

from __future__ import annotations

import os

from pixelwise.data.statistics import median_frequency, usual_crop
from pixelwise.doctor.checks import classes as by_class
from pixelwise.doctor.diagnosis import Suggestion
from pixelwise.doctor.survey import Survey

BYTES_PER_PIXEL = 3100
"""Of memory for each pixel of a batch while the default network trains, and ..."""
BASE_BYTES = 460 << 20
"""... whatever the batch: peak of the process for batches of 2 and 4 of 352x480 (DeepLabV3+ on
MobileNetV2, output stride 16, float32, CPU)."""
USABLE = 0.5
"""Share of the memory to plan with; the rest is for the pictures, the system and others."""
MAX_BATCH = 8
"""The default; a larger one would ask for another learning rate."""


def suggestions(survey: Survey) -> list[Suggestion]:
    sizes = [s.image.size for s in survey.usable()]
    if not sizes or survey.classes is None:
        return []
    crop = usual_crop(sizes)
    found = [
        Suggestion(
            "augmentation.crop",
            list(crop),
            f'--set augmentation.crop="[{crop[0]}, {crop[1]}]"',
            "the usual size of the images, rounded down to a multiple of 32, at most 512 a side",
        )
    ]
    counts = by_class.pixels(survey, "train")[:-1]
    present = counts[counts > 0]
    if len(present) > 1 and present.max() / present.min() >= by_class.IMBALANCED:
        weights = median_frequency(present)
        found.append(
            Suggestion(
                "loss.class_weights",
                "median_frequency",
                by_class.WEIGHTS_FLAG,
                f"the classes differ {present.max() / present.min():.0f}-fold in size; the weights "
                f"would be {weights.min():.2g} to {weights.max():.2g}",
            )
        )
    batch, reason = _batch(crop, train=sum(1 for _ in survey.usable("train")))
    found.append(Suggestion("batch_size", batch, f"--batch-size {batch}", reason))
    return found


def _batch(crop: tuple[int, int], *, train: int) -> tuple[int, str]:
    """A power of two from 2, which batch normalisation needs, and why."""
    each = BYTES_PER_PIXEL * crop[0] * crop[1]
    memory = total_memory()
    room = MAX_BATCH if memory is None else int((memory * USABLE - BASE_BYTES) // each)
    limit = max(2, min(room, MAX_BATCH, max(2, train // 4)))
    batch = 1 << (limit.bit_length() - 1)
    reason = f"about {each / 2**20:.0f} MiB an image of this crop, with the default network"
    if memory is not None:
        reason += f"; this machine has {memory / 2**30:.0f} GiB of memory"
    if train // 4 < min(room, MAX_BATCH):
        reason += f"; {train} images to train on"
    return batch, reason


def total_memory() -> int | None:
    """Bytes of memory of this machine, None where the system does not say so."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):  # Windows has no sysconf
        return None
