"""Let a forward pass over a tile compute what a pass over the whole image would.

Two kinds of layers depend on more than a neighborhood of each position:

- A resize spreads its positions over the size of the whole map: 3000 pixels at stride 16 are 188
  positions, each a little less than 16 pixels wide.
- Image pooling averages the whole map.

`resize` and `ImagePooling` in `pixelwise.layers` ask the current context how to do their work, so
networks are written once, for whole images.

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
    """Handles the resizes and poolings of one forward pass, in the order of the computation."""

    def resize(self, x: Tensor, *, size: Size, align_corners: bool) -> Tensor | None:
        """Return the map at `size`, or None to fall back to ordinary interpolation."""

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean (B, C, 1, 1) of the image's map, given the part `x` of the tile."""


_current: ContextVar[ForwardContext | None] = ContextVar("forward_context", default=None)


def current_context() -> ForwardContext | None:
    """Return the context of the running forward pass, or None for a pass over a whole image."""
    return _current.get()


@contextmanager
def use_context(context: ForwardContext) -> Iterator[None]:
    """Run the forward passes inside the `with` block in `context`."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


class SizeContext:
    """Records the sizes of the maps that are resized and pooled.

    Attributes:
        resized: (size before, size after, align_corners) of each resize.
        pooled: Size of each pooled map.
    """

    def __init__(self) -> None:
        self.resized: list[tuple[Size, Size, bool]] = []
        self.pooled: list[Size] = []

    def resize(self, x: Tensor, *, size: Size, align_corners: bool) -> Tensor | None:
        self.resized.append((_size(x), size, align_corners))
        return None

    def mean(self, x: Tensor) -> Tensor:
        self.pooled.append(_size(x))
        return map_mean(x)


class ReceptiveFieldContext:
    """Tracks how far the NaN rows of an input spread.

    Pooling would spread them everywhere, so it returns zeros here.

    Attributes:
        pooled: For each pooled map a boolean tensor (H,), True for rows that contain NaN.
    """

    def __init__(self) -> None:
        self.pooled: list[Tensor] = []

    def resize(self, x: Tensor, *, size: Size, align_corners: bool) -> Tensor | None:
        return None

    def mean(self, x: Tensor) -> Tensor:
        self.pooled.append(x.isnan().any(dim=3).any(dim=1)[0])
        return torch.zeros_like(x[:, :, :1, :1])


class PoolingReached(Exception):  # noqa: N818 - control flow, not an error
    """Ends a pass that only needs the sums of a pooled map: the layers after it are not run."""


class TileContext:
    """Computes a tile as part of its image.

    Args:
        resizes: For each resize of the pass a tensor (2, 2) with (scale, offset) for the vertical
            and the horizontal axis: output position i reads from position scale * i + offset of
            the tile's own map. None where resizing the tile alone gives the same result.
        pooled: Means (C,) of the whole image for each pooling, in the order of the computation.
        own: Rows and columns that this tile contributes to the map of the pooling after those in
            `pooled`. The pass then stops at that pooling with `PoolingReached`, and `sums` holds
            the sums (C,) over these positions in double precision.
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
        return None if lines is None else interpolate(x, size=size, lines=lines)

    def mean(self, x: Tensor) -> Tensor:
        mean = next(self.pooled, None)
        if mean is not None:
            return mean.to(x).view(1, -1, 1, 1)
        if self.own is None:
            raise ValueError("this network has more image poolings than `pooled` has means")
        rows, columns = self.own
        self.sums = x[0, :, rows, columns].double().sum(dim=(1, 2))
        raise PoolingReached


def map_mean(x: Tensor) -> Tensor:
    """Average (B, C, H, W) over its positions, to (B, C, 1, 1)."""
    return x.mean(dim=(2, 3), keepdim=True)


def interpolate(x: Tensor, *, size: Size, lines: Tensor) -> Tensor:
    """Interpolate (B, C, H, W) bilinearly, first vertically, then horizontally.

    Positions beyond the border repeat the last value.

    Args:
        x: The map.
        size: Output size.
        lines: (2, 2) with (scale, offset) per axis; output position i reads from position
            scale * i + offset.
    """
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    first_axis = 1 if channels_last else 2
    maps = x.permute(0, 2, 3, 1) if channels_last else x  # rows to select are contiguous
    for axis, length in enumerate(size, start=first_axis):
        end = maps.shape[axis] - 1
        scale, offset = lines[axis - first_axis]
        position = torch.arange(length, device=x.device, dtype=torch.float64) * scale + offset
        position = position.clamp(0, end)
        index = position.floor().long()
        weight = (position - index).to(x.dtype)
        before = maps.index_select(axis, index)
        after = maps.index_select(axis, (index + 1).clamp(max=end))
        maps = before.lerp_(after, weight.view([-1 if i == axis else 1 for i in range(4)]))
    return maps.permute(0, 3, 1, 2) if channels_last else maps


def _size(x: Tensor) -> Size:
    return x.shape[2], x.shape[3]
