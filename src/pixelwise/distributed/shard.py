"""The shard of a batch: the images that one process computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class BatchShard:
    """A contiguous range of the images of a batch. Sizes differ by at most one and may be 0.

    Attributes:
        rank: Rank of the process.
        world_size: Number of processes.
        images: Number of images of the whole batch.
    """

    rank: int
    world_size: int
    images: int

    @property
    def sizes(self) -> list[int]:
        """Number of images of each process, by rank."""
        bounds = [self.images * i // self.world_size for i in range(self.world_size + 1)]
        return [stop - start for start, stop in pairwise(bounds)]

    @property
    def size(self) -> int:
        """Number of images of this process."""
        return self.sizes[self.rank]

    @property
    def own(self) -> slice:
        """Indices of this process's images in the batch."""
        start = self.images * self.rank // self.world_size
        return slice(start, start + self.size)


_current: ContextVar[BatchShard | None] = ContextVar("shard", default=None)


def current_shard() -> BatchShard | None:
    """Return the shard that the current forward pass computes, or None for a whole batch."""
    return _current.get()


@contextmanager
def use_shard(shard: BatchShard) -> Iterator[None]:
    """Compute a training forward pass and its loss on a shard.

    All processes must enter this context for the same batch: operations inside it communicate.
    """
    token = _current.set(shard)
    try:
        yield
    finally:
        _current.reset(token)
