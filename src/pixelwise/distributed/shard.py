"""Which images of a batch are this process's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class BatchShard:
    """The part of a batch of `images` that the process `rank` of `processes` has: images in a row,
    the processes' numbers differing by one at most. There may be none."""

    rank: int
    processes: int
    images: int

    @property
    def sizes(self) -> list[int]:
        """The number of images of each process."""
        bounds = [self.images * i // self.processes for i in range(self.processes + 1)]
        return [stop - start for start, stop in pairwise(bounds)]

    @property
    def size(self) -> int:
        """The number of this process's images."""
        return self.sizes[self.rank]

    @property
    def own(self) -> slice:
        """This process's images among those of the batch."""
        start = self.images * self.rank // self.processes
        return slice(start, start + self.size)


_current: ContextVar[BatchShard | None] = ContextVar("share", default=None)


def current_shard() -> BatchShard | None:
    """The share that a forward pass and its loss are computed of; None for a whole batch."""
    return _current.get()


@contextmanager
def sharing(share: BatchShard) -> Iterator[None]:
    """Around a forward pass in training and its loss: all processes enter it for the same batch,
    and what is computed inside waits for the others."""
    token = _current.set(share)
    try:
        yield
    finally:
        _current.reset(token)
