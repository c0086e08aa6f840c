"""Passes over a window that compute what a pass over the whole image would.

Two kinds of layers look at more than a neighborhood. A resize lays its positions by the size of
the whole map: 3000 pixels at stride 16 are 188 positions, each a little less than 16 pixels wide.
An image pooling is the mean of the whole map. `resize` and `ImagePooling` of `pixelwise.layers` ask
here what pass they are in, so that networks are written once, for whole images.

Tensors are (B, C, H, W); sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor

Size = tuple[int, int]


class ForwardContext(Protocol):
    """What the layers ask: both are called in the order in which the network computes them."""

    def resize(self, x: Tensor, *, size: Size, align_corners: bool) -> Tensor | None:
        """The map at `size`, or None for the usual interpolation."""

    def mean(self, x: Tensor) -> Tensor:
        """The mean (B, C, 1, 1) of the whole map of which `x` is the window's."""


_current: ContextVar[ForwardContext | None] = ContextVar("pass", default=None)


def current_context() -> ForwardContext | None:
    """The pass that this forward belongs to; None for one over a whole image."""
    return _current.get()


@contextmanager
def running(kind: ForwardContext) -> Iterator[None]:
    """Around a forward of the network."""
    token = _current.set(kind)
    try:
        yield
    finally:
        _current.reset(token)


class SizeContext:
    """Notes the sizes of the maps that are resized, (from, to, align_corners), and pooled."""

    def __init__(self) -> None:
        self.resized: list[tuple[Size, Size, bool]] = []
        self.pooled: list[Size] = []

    def resize(self, x: Tensor, *, size: Size, align_corners: bool) -> Tensor | None:
        self.resized.append((_size(x), size, align_corners))
        return None

    def mean(self, x: Tensor) -> Tensor:
        self.pooled.append(_size(x))
        return whole_mean(x)


class ReceptiveFieldContext:
    """For an input with not-a-number in some rows: how far these come.

    A pooling, which would bring them everywhere, gives zeros; `pooled` has the rows of each pooled
    map, True where one has come.
    """

    def __init__(self) -> None:
        self.pooled: list[Tensor] = []

    def resize(self, x: Tensor, *, size: Size, align_corners: bool) -> Tensor | None:
        return None

    def mean(self, x: Tensor) -> Tensor:
        self.pooled.append(x.isnan().any(dim=3).any(dim=1)[0])
        return torch.zeros_like(x[:, :, :1, :1])


class SummedContext(Exception):  # noqa: N818 - no error, but the way out
    """Ends a pass that was made for the sums of a pooled map: nothing after it is needed."""


class TileContext:
    """A pass over a window as a part of its image.

    resizes: for each resize of the pass a tensor (2, 2), (scale, offset) of the vertical and the
    horizontal: position i of the result is read at scale * i + offset of the window's own map. None
    where that is what a resize of the window alone does.
    pooled: the whole image's means, (C,) each, in the order in which they are computed.
    own: the rows and columns of the map of the next pooling that are this window's share of the
    whole. The pass then ends there, raising `Summed`, with their `sums` (C,), in double precision.
    """

    def __init__(
        self,
        resizes: Iterable[Tensor | None],
        pooled: Iterable[Tensor],
        *,
        own: tuple[slice, slice] | None = None,
    ) -> None:
        self.resizes = iter(resizes)
        self.pooled = iter(pooled)
        self.own = own
        self.sums: Tensor | None = None

    def resize(self, x: Tensor, *, size: Size, align_corners: bool) -> Tensor | None:
        lines = next(self.resizes)
        if lines is None:
            return None
        return interpolate(x, size=size, lines=lines)

    def mean(self, x: Tensor) -> Tensor:
        given = next(self.pooled, None)
        if given is not None:
            return given.to(x).view(1, -1, 1, 1)
        if self.own is None:
            raise ValueError("the means of the whole image do not suffice for this network")
        rows, columns = self.own
        self.sums = x[0, :, rows, columns].double().sum(dim=(1, 2))
        raise SummedContext


def whole_mean(x: Tensor) -> Tensor:
    """(B, C, 1, 1)."""
    return x.mean(dim=(2, 3), keepdim=True)


def interpolate(x: Tensor, *, size: Size, lines: Tensor) -> Tensor:
    """Bilinear interpolation of (B, C, H, W) to `size`: along each axis, vertical before
    horizontal, position i reads at scale * i + offset, where `lines` (2, 2) holds (scale, offset).

    Beyond the map's border its last position is repeated.
    """
    last = x.is_contiguous(memory_format=torch.channels_last)
    maps = x.permute(0, 2, 3, 1) if last else x  # so that what is selected lies together
    for axis, length in enumerate(size, start=1 if last else 2):
        end = maps.shape[axis] - 1
        scale, offset = lines[axis - (1 if last else 2)]
        place = torch.arange(length, device=x.device, dtype=torch.float64) * scale + offset
        place = place.clamp(0, end)
        index = place.floor().long()
        part = (place - index).to(x.dtype)
        before = maps.index_select(axis, index)
        after = maps.index_select(axis, (index + 1).clamp(max=end))
        maps = before.lerp_(after, part.view([-1 if i == axis else 1 for i in range(4)]))
    return maps.permute(0, 3, 1, 2) if last else maps


def _size(x: Tensor) -> Size:
    return x.shape[2], x.shape[3]
