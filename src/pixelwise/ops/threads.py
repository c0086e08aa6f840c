"""All cores at compiled functions, by plain threads: such functions run without Python's lock."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numba


class Threads:
    """As many threads as there are cores for this process, or as NUMBA_NUM_THREADS says.

    They live as long as the `with` block: starting them takes a tenth of a millisecond, and none
    is left for a fork to lose. Outside of a block everything runs in the caller's thread.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count: int = numba.config.NUMBA_NUM_THREADS if count is None else count
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Threads:
        if self.count > 1:
            self._pool = ThreadPoolExecutor(self.count - 1, thread_name_prefix="pixelwise-compiled")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def share(self, function: Callable[..., None], items: int, *arguments: Any) -> None:
        """function(begin, end, *arguments) on parts of range(items), one part a thread."""
        if self._pool is None or items < 2:
            function(0, items, *arguments)
            return
        parts = min(self.count, items)
        ends = [items * part // parts for part in range(parts + 1)]
        others = [
            self._pool.submit(function, begin, end, *arguments)
            for begin, end in itertools.pairwise(ends[1:])
        ]
        function(0, ends[1], *arguments)
        for other in others:
            other.result()
