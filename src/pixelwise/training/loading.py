"""From a checked data set to batches, each a pure function of the seed, the epoch and the place."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.transforms import Augmentation
from pixelwise.distributed.shard import BatchShard

MAX_WORKERS = 8


class BatchOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index): every image once an epoch, in an order drawn from the seed.

    Sizes differ by one at most, so a remainder never leaves a last batch of one, and nothing is
    left out.
    rank, processes: what is iterated over is this process's share of each batch; where that is no
    image, one that is another's, so that there is something to cut to none.
    """

    def __init__(
        self, count: int, *, batch_size: int, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.count = count
        self.steps = -(-count // batch_size)
        self.seed = seed
        self.rank, self.processes = rank, processes
        self.epoch = self.done = 0

    def __len__(self) -> int:
        return self.steps

    def begin(self, epoch: int, *, done: int = 0) -> None:
        """Give the batches of an epoch from here on, without the first `done` of them."""
        self.epoch, self.done = epoch, done

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._batches(self.epoch)[self.done :]:
            yield batch[BatchShard(self.rank, self.processes, len(batch)).own] or batch[:1]

    def share(self, step: int) -> BatchShard:
        """Of the batch of a step, from 1: as large in every epoch."""
        larger = step <= self.count % self.steps
        return BatchShard(self.rank, self.processes, self.count // self.steps + larger)

    def batch(self, epoch: int, step: int) -> list[tuple[int, int]]:
        """The whole batch of a step, from 1."""
        return self._batches(epoch)[step - 1]

    def _batches(self, epoch: int) -> list[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return [
            [(epoch, int(index)) for index in part] for part in np.array_split(order, self.steps)
        ]


class AugmentedSplit(Dataset[tuple[Tensor, Tensor]]):
    """(epoch, index) to an augmented pair: (C, H, W) in units of 0..255 and (H, W) uint8.

    The random draws depend on (seed, epoch, index) alone, not on which process makes them.
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


def make_loader(
    dataset: AugmentedSplit, order: BatchOrder, *, workers: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches in order. Workers leave Ctrl-C to the run, which ends the step first."""
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_ignore_ctrl_c,
        # Of its own: it draws from it at each start, and the run's random state is to be a
        # function of the steps alone.
        generator=torch.Generator(),
    )


def _ignore_ctrl_c(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def auto_workers(device: torch.device, *, processes: int = 1) -> int:
    """Loading processes for each of a machine's `processes` of the run: none on a CPU, where they
    would take the cores the step computes with."""
    if device.type == "cpu":
        return 0
    return min(MAX_WORKERS, max(1, (os.cpu_count() or 1) // processes - 1))
