"""What a runtime compiles for images of one size, or of any."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from pixelwise.inference.runtimes.tile_geometry import Size

Compiled = TypeVar("Compiled")

KEPT = 2  # compiled sizes; each has a copy of the weights, and maps
KEPT_SMALL = 8  # the same where every size must be compiled, of up to so many pixels in all
ROOM = 2 << 20
WORTH = 3  # images of a size after which it is compiled for itself


class CompiledCache(Generic[Compiled]):
    """A model compiled for one size is faster than one for any: the first image's size and every
    one that comes often are compiled for themselves, and the last two of them are kept.

    any_size: whether there is one for any; otherwise every size is compiled for itself, and more of
    them are kept if they are small.
    Methods may be called from any thread.
    """

    def __init__(self, *, any_size: bool = True) -> None:
        self._any_size = any_size
        self._lock = Lock()
        self._seen: Counter[Size] = Counter()
        self._static: OrderedDict[tuple[Size, str], Compiled] = OrderedDict()
        self._dynamic: dict[str, Compiled] = {}

    def get(
        self, size: Size, output: str, make: Callable[[str, Size | None], Compiled]
    ) -> Compiled:
        """For an image of this size, and one of the graph's outputs.

        make: what to call with the output and the size, or None for any, where it is not there yet.
        Not kept: a runtime that a cycle holds is freed in whatever thread and order the collector
        comes to it, and processes with OpenVINO died of that.
        """
        with self._lock:
            self._seen[size] += 1
            key = (size, output)
            if key in self._static:
                self._static.move_to_end(key)
                return self._static[key]
            if not self._any_size or len(self._seen) == 1 or self._seen[size] >= WORTH:
                self._make_room(size)
                self._static[key] = make(output, size)
                return self._static[key]
            if output not in self._dynamic:
                self._dynamic[output] = make(output, None)
            return self._dynamic[output]

    def _make_room(self, size: Size) -> None:
        """Drop what was not used for longest."""
        while len(self._static) >= KEPT:
            pixels = sum(height * width for height, width in [*self.sizes, size])
            if not self._any_size and len(self._static) < KEPT_SMALL and pixels <= ROOM:
                break
            self._static.popitem(last=False)

    @property
    def sizes(self) -> list[Size]:
        """Those that something is compiled for."""
        return [size for size, _ in self._static]
