"""Run compiled functions on all cores with plain threads: they release Python's lock."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba

from pixelwise.process_settings import cores


class Threads:
    """A context manager with a pool of threads.

    The threads live as long as the `with` block. Starting them takes a tenth of a millisecond, and
    none is left that a fork would lose. Outside the block everything runs in the caller's thread.

    Args:
        count: Number of threads. Defaults to the environment variable NUMBA_NUM_THREADS, or the
            number of cores that this process may use.
    """

    def __init__(self, count: int | None = None) -> None:
        if count is None:
            configured = "NUMBA_NUM_THREADS" in os.environ
            count = numba.config.NUMBA_NUM_THREADS if configured else cores()
        self.count: int = count
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Threads:
        if self.count > 1:
            self._pool = ThreadPoolExecutor(self.count - 1, thread_name_prefix="pixelwise-compiled")
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def run(self, function: Callable[..., None], items: int, *arguments: Any) -> None:
        """Call function(begin, end, *arguments) for consecutive ranges of items, one per thread."""
        if self._pool is None or items < 2:
            function(0, items, *arguments)
            return
        chunks = min(self.count, items)
        ends = [items * chunk // chunks for chunk in range(chunks + 1)]
        futures = [
            self._pool.submit(function, begin, end, *arguments)
            for begin, end in itertools.pairwise(ends[1:])
        ]
        function(0, ends[1], *arguments)
        for future in futures:
            future.result()
