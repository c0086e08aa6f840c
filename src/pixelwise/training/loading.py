"""Load batches of augmented images. A batch depends only on the seed, the epoch and the step."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.distortion import Distortion
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.data.transforms import Augmentation
from pixelwise.distributed.shard import BatchShard
from pixelwise.errors import InputError
from pixelwise.recipes.schema import ResolvedAugmentationRecipe
from pixelwise.training.run_folder import Run

MAX_WORKERS = 8


class BatchOrder(Sampler[list[tuple[int, int]]]):
    """Sample batches of (epoch, index): each image once per epoch, in an order drawn by the seed.

    Batch sizes of an epoch differ by at most one, so that there is no last batch of a single image
    and no image is dropped. Iteration yields the shard of this process; if that is empty, one image
    of the batch, so that there is something to load.

    Args:
        count: Number of images.
        batch_size: Maximum number of images per batch, over all processes.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(
        self, count: int, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.count = count
        self.steps = -(-count // batch_size)
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.done = 0

    def __len__(self) -> int:
        return self.steps

    def begin(self, epoch: int, *, done: int = 0) -> None:
        """Iterate over the batches of `epoch` from now on, without the first `done`."""
        self.epoch, self.done = epoch, done

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._batches(self.epoch)[self.done :]:
            yield batch[BatchShard(self.rank, self.world_size, len(batch)).own] or batch[:1]

    def images(self, step: int) -> int:
        """Return the number of images of the batch of a step, from 1, over all processes."""
        return self.count // self.steps + (step <= self.count % self.steps)

    def shard(self, step: int) -> BatchShard:
        """Return this process's shard of the batch of a step, from 1."""
        return BatchShard(self.rank, self.world_size, self.images(step))

    def batch(self, epoch: int, step: int) -> list[tuple[int, int]]:
        """Return the whole batch of a step, from 1."""
        return self._batches(epoch)[step - 1]

    def _batches(self, epoch: int) -> list[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return [
            [(epoch, int(index)) for index in batch] for batch in np.array_split(order, self.steps)
        ]


class AugmentedSplit(Dataset[tuple[Tensor, Tensor]]):
    """Map (epoch, index) to an augmented image (C, H, W), in units of 0..255, and mask (H, W).

    The random augmentation depends on (seed, epoch, index) only, not on the loading process.
    """

    def __init__(
        self, data: SegmentationData, split: str, augmentation: Augmentation, *, seed: int
    ) -> None:
        self.data = data
        self.samples = data.splits[split]
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image, mask = self.data.read(self.samples[index])
        rng = np.random.default_rng((self.seed, epoch, index))
        image, mask = self.augmentation(image, mask, rng)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)


def make_augmentation(
    recipe: ResolvedAugmentationRecipe,
    *,
    fill: tuple[float, ...],
    counts: NDArray[np.int64],
    pixels: PixelFormat = RGB,
) -> Augmentation:
    """Return the augmentation of a recipe.

    Args:
        recipe: The augmentation section of the recipe.
        fill: Pixel value outside of images.
        counts: Number of training pixels of each class (C,).
        pixels: Format of the images.

    Raises:
        InputError: If the recipe has JPEG compression, and the images cannot be compressed.
    """
    if recipe.jpeg and (pixels.channels not in (1, 3) or not pixels.is_bytes):
        raise InputError(
            f"augmentation.jpeg = {recipe.jpeg}: the images are {pixels}: JPEG holds 8-bit images "
            "with 1 or 3 channels: set augmentation.jpeg = 0"
        )
    settings = {key: value for key, value in recipe if key != "preset"}
    if recipe.crop == "image":
        settings["crop"] = None
    names = [each.name for each in fields(Distortion)]
    distortion = Distortion(**{name: settings.pop(name) for name in names})
    weights = tuple((1 / np.maximum(counts, 1)).tolist())  # inverse frequencies
    return Augmentation(**settings, distortion=distortion, class_weights=weights, fill=fill)


def augmented_train_split(run: Run) -> AugmentedSplit:
    """Return the training images of a run as it augments them."""
    data, recipe = run.data, run.recipe
    augmentation = make_augmentation(
        recipe.augmentation,
        fill=run.normalization.fill(),
        counts=data.pixel_counts["train"],
        pixels=data.pixels,
    )
    return AugmentedSplit(data, "train", augmentation, seed=recipe.seed)


def make_loader(
    dataset: AugmentedSplit, order: BatchOrder, *, workers: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a loader of the batches of `order`.

    Workers ignore Ctrl-C: the training process handles it after the current step.
    """
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_ignore_ctrl_c,
        # DataLoader draws from its generator at each start. With its own generator the global
        # random state depends on the steps only.
        generator=torch.Generator(),
    )


def _ignore_ctrl_c(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def auto_workers(device: torch.device, *, processes: int = 1) -> int:
    """Return the number of DataLoader workers per training process of this machine.

    It is 0 on a CPU, where they would compete with the training step for the cores.
    """
    if device.type == "cpu":
        return 0
    return min(MAX_WORKERS, max(1, (os.cpu_count() or 1) // processes - 1))
