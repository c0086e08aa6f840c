"""Load batches of augmented images. A batch depends only on the seed, the epoch and the step."""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.distortion import Distortion
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.data.transforms import Augmentation
from pixelwise.distributed.context import DistributedContext
from pixelwise.distributed.shard import BatchShard
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.process_settings import cores
from pixelwise.recipes.schema import ResolvedAugmentationRecipe
from pixelwise.training.run_folder import Run

MAX_WORKERS = 8
SHARED_MEMORY = Path("/dev/shm")  # where PyTorch puts the tensors of workers on Linux
WORKER_LOST = ("killed by signal", "exited unexpectedly", "for file </torch_")
"""Parts of PyTorch's messages about workers that were killed or found no shared memory."""


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

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[tuple[Tensor, Tensor]] | str:
        """Return the pairs of a batch, or the problem of one: DataLoader would add a traceback."""
        try:
            return [self[key] for key in keys]
        except PixelwiseError as error:
            return "\n".join(error.problems)

    def batch_bytes(self, images: int) -> int:
        """Return the memory of the largest batch of that many images."""
        sizes = [self.data.sizes[sample.name] for sample in self.samples]
        factor = 1.0
        if self.augmentation.crop is not None:
            sizes = [self.augmentation.crop]
        else:
            factor = max(1, self.augmentation.scale[1]) ** 2
        values = self.data.pixels.channels * np.dtype(self.data.pixels.network_dtype).itemsize
        return int(images * factor * max(map(math.prod, sizes)) * (values + 1))


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


def make_loader(dataset: AugmentedSplit, order: BatchOrder, *, workers: int) -> DataLoader[Any]:
    """Return a loader of the batches of `order`, to be iterated with `iterate`.

    Workers send their batches through shared memory, or through pipes if it is too small for them,
    as in many containers. They ignore Ctrl-C: the training process handles it after the current
    step.

    Args:
        dataset: The training split.
        order: The order of its images.
        workers: Number of worker processes. 0: load in this process.
    """
    # Of each worker two batches are waiting and one is in the making; the step has two. All
    # processes of a run may be on this machine, so the whole batch counts.
    needed = (3 * workers + 2) * dataset.batch_bytes(order.images(1))
    is_small = workers > 0 and SHARED_MEMORY.is_dir() and _free_bytes(SHARED_MEMORY) < needed
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_collate_arrays if is_small else _collate,
        worker_init_fn=_ignore_ctrl_c,
        # DataLoader draws from its generator at each start. With its own generator the global
        # random state depends on the steps only.
        generator=torch.Generator(),
    )


def iterate(loader: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images (B, C, H, W), in units of 0..255, and masks (B, H, W) from a loader.

    Raises:
        InputError: If a file of the dataset can no longer be read.
    """
    for batch in loader:
        if isinstance(batch, str):
            raise InputError(batch)
        images, labels = batch
        yield torch.as_tensor(images), torch.as_tensor(labels)


def lost_worker(error: RuntimeError) -> str:
    """Return how a worker ended, if PyTorch reports that; otherwise an empty string."""
    text = str(error)
    return text.splitlines()[-1] if any(part in text for part in WORKER_LOST) else ""


def _collate(pairs: list[tuple[Tensor, Tensor]] | str) -> Any:
    return pairs if isinstance(pairs, str) else default_collate(pairs)


def _collate_arrays(pairs: list[tuple[Tensor, Tensor]] | str) -> Any:
    """Return arrays: tensors would be sent through shared memory."""
    if isinstance(pairs, str):
        return pairs
    return [np.stack([tensor.numpy() for tensor in part]) for part in zip(*pairs, strict=True)]


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _ignore_ctrl_c(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def count_workers(chosen: int | Literal["auto"], group: DistributedContext) -> int:
    """Return the number of DataLoader workers of this training process.

    `auto` is 0 on a CPU, where they would compete with the training step for the cores.
    """
    if chosen != "auto":
        return chosen
    if group.fabric.device.type == "cpu":
        return 0
    return min(MAX_WORKERS, max(1, cores() // group.distributed_env.local_world_size - 1))
