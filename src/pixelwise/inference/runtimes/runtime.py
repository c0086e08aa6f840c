"""The contract of a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixels import Pixels
from pixelwise.inference.traits import Traits


class Runtime(Protocol):
    """A network that is ready to run, normalisation and enlarging included.

    name: as `--runtime` has it. Pictures are (H, W, C) of any size in units of 0..255,
    uint8 or float32: see `pixelwise.data.pixels`.
    """

    name: str

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(C, H, W) float32 scores before the softmax."""

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W) uint8 indices of the largest logits; where runtimes can, without the logits."""


@dataclass(frozen=True)
class View:
    """Where a window lies in its picture, and what it cannot see of it.

    size: of the picture, (height, width). top, left: the window's first row and column.
    pooled: the picture's mean at each image pooling, (channels,) float32, in the order in which the
    network computes them; those that are known yet.
    """

    size: tuple[int, int]
    top: int
    left: int
    pooled: tuple[NDArray[np.float32], ...] = ()


class PartRuntime(Runtime, Protocol):
    """A runtime that can compute a window as part of its picture, as `pixelwise.passes` has it.

    Windows keep the rules of `pixelwise.inference.windows`. Two things are then other than in a
    pass over the window alone:

    Every resize reads where that of the whole would. With maps of I and i positions before it, and
    O and o after it, in the whole and in the window, along one axis of lengths L and l, the
    window's maps begin at position a = start * (I - i) / (L - l) and b = start * (O - o) / (L - l)
    of the whole's (0 where L = l). Position p of the result is read at scale * p + offset of the
    window's map, with its last position repeated beyond the border, where scale = I / O and offset
    = (b + 1/2) * scale - 1/2 - a; with corners aligned scale = (I - 1) / (O - 1) and offset =
    b * scale - a.

    Every image pooling gives the mean of the whole's map: for c5 (1, C5, h, w) a vector (C5,), in
    place of the mean over h and w, before the projection. It is found by a pass for each pooling,
    in which the windows give the sums over their own shares.
    """

    @property
    def traits(self) -> Traits:
        """Of the network; computed once."""

    def part_logits(self, window: Pixels, view: View) -> NDArray[np.float32]:
        """(h, w, C) to (classes, h, w), all means in `view.pooled`. The array is the caller's."""

    def part_sums(
        self, window: Pixels, view: View, own: tuple[slice, slice]
    ) -> tuple[NDArray[np.float64], int]:
        """The sum (channels,) over the window's share of the map of the next pooling, the one after
        those in `view.pooled`, and of how many positions.

        own: the rows and columns of the window that are its share, in pixels from its corner; they
        begin at multiples of the step, and end there or at the picture's border.
        """


class ConcurrentRuntime(Runtime, Protocol):
    """A runtime that can also give each core a picture of its own.

    Of many pictures that makes more a second than all cores at one after the other, since no core
    waits for the others at the end of each layer.

    concurrency: how many calls of `classify_concurrently` may run at the same time; 1 where there
    is one core only.
    """

    concurrency: int

    def classify_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """What `classify` gives, from any thread. Each call that runs takes `classify`'s memory."""


def knows_parts(runtime: Runtime) -> TypeGuard[PartRuntime]:
    """Whether a runtime is a `PartRuntime`."""
    return hasattr(runtime, "part_logits")


def runs_concurrently(runtime: Runtime) -> TypeGuard[ConcurrentRuntime]:
    """Whether a runtime is a `ConcurrentRuntime`."""
    return hasattr(runtime, "classify_concurrently")
