"""Cache of models that a runtime compiles for one image size or for any size."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from pixelwise.inference.runtimes.forking import ProcessLock, forget_after_fork, keep_forever
from pixelwise.inference.runtimes.tile_geometry import Size

Compiled = TypeVar("Compiled")

MAX_STATIC = 2  # cached sizes; each compiled model holds a copy of the weights and feature maps
MAX_SMALL_STATIC = 8  # the same without a dynamic model, while all sizes together stay small
SMALL_PIXELS = 2 << 20  # the total number of pixels up to which they count as small
COMPILE_AFTER = 3  # images of a size after which a model is compiled for that size


class CompiledCache(Generic[Compiled]):
    """Compile static models for frequent image sizes and one dynamic model for all others.

    A model compiled for one size is faster than a dynamic one. The first size and every size that
    occurs often get a static model; the most recently used ones are kept. Methods may be called
    from any thread. A forked process compiles its own models.

    Args:
        any_size: Whether a dynamic model is possible. If not, every size gets a static model, and
            more of them are kept while they are small.
    """

    def __init__(self, *, any_size: bool = True) -> None:
        self._any_size = any_size
        self._lock = ProcessLock()
        self._requests: Counter[Size] = Counter()
        self._static: OrderedDict[tuple[Size, str], Compiled] = OrderedDict()
        self._dynamic: dict[str, Compiled] = {}
        forget_after_fork(self)

    def forget(self) -> None:
        """Forget the models, but not which sizes have one of their own."""
        for size in self.sizes:
            self._requests[size] = max(self._requests[size], COMPILE_AFTER)
        keep_forever((self._static, self._dynamic))
        self._static, self._dynamic = OrderedDict(), {}

    def get(
        self, size: Size, output: str, build: Callable[[str, Size | None], Compiled]
    ) -> Compiled:
        """Return the compiled model for an image size and one of the graph's outputs.

        Args:
            size: Height and width of the image.
            output: Name of the output.
            build: Called with the output and the size, or None for any size, if the model
                is not cached. It is not stored: a reference cycle leaves the runtime to the garbage
                collector, whose thread and order of freeing crashed processes with OpenVINO.
        """
        with self._lock:
            self._requests[size] += 1
            key = (size, output)
            if key in self._static:
                self._static.move_to_end(key)
                return self._static[key]
            first = len(self._requests) == 1
            if first or self._requests[size] >= COMPILE_AFTER or not self._any_size:
                self._evict_for(size)
                self._static[key] = build(output, size)
                return self._static[key]
            if output not in self._dynamic:
                self._dynamic[output] = build(output, None)
            return self._dynamic[output]

    def _evict_for(self, size: Size) -> None:
        """Drop the least recently used models to make room for one more."""
        while len(self._static) >= MAX_STATIC:
            pixels = sum(height * width for height, width in [*self.sizes, size])
            small = len(self._static) < MAX_SMALL_STATIC and pixels <= SMALL_PIXELS
            if not self._any_size and small:
                break
            self._static.popitem(last=False)

    @property
    def sizes(self) -> list[Size]:
        """The sizes with a static model, least recently used first."""
        return [size for size, _ in self._static]
