"""Masks that are stored as outlines or runs, and drawn when they are read.

A pixel belongs to a polygon if its center, (column + 0.5, row + 0.5), lies inside by the even-odd
rule. Two polygons that share an edge then share no pixel and leave no gap, whatever the fractions
of their corners are. (Pillow's and OpenCV's polygons hold their own border as well, and are half a
pixel fatter; COCO's rasteriser draws at five times the size. The difference is at the border.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError

FARTHEST = 1e9
"""From an image's corner, in pixels; beyond it differences of coordinates lose the pixel."""

BLOCK = 1 << 22
"""Crossings of edges with rows that are worked on at once."""


class Region(Protocol):
    """One object of an image, with the value that its pixels have in the mask."""

    @property
    def value(self) -> int: ...

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Which pixels (H, W) of an image of `size` (height, width) belong to it.

        Raises InputError, without the file's name, where it does not fit such an image.
        """


@dataclass(frozen=True, eq=False)
class Polygons:
    """The union of closed outlines.

    rings: (N, 2) as x, y with (0, 0) the upper left corner of the image.
    relative: whether x and y are shares of the width and height rather than pixels.
    """

    value: int
    rings: tuple[NDArray[np.float64], ...]
    relative: bool = False

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        covered = np.zeros(size, dtype=bool)
        for ring in self.rings:
            scaled = ring * (size[1], size[0]) if self.relative else ring
            covered |= fill_polygon(scaled, size)
        return covered


@dataclass(frozen=True)
class Disc:
    """A circle, in pixels."""

    value: int
    center: tuple[float, float]
    radius: float

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        rows, columns = np.ogrid[0.5 : size[0] + 0.5, 0.5 : size[1] + 0.5]
        x, y = self.center
        with np.errstate(over="ignore"):  # far away is far enough
            distance = (columns - x) ** 2 + (rows - y) ** 2
            return np.asarray(distance <= np.float64(self.radius) ** 2)


@dataclass(frozen=True)
class Ellipse:
    """An ellipse, by shares of the image's width (x) and height (y).

    center: x, y. radii: along x and y, before it is turned by `degrees` clockwise, in pixels.
    """

    value: int
    center: tuple[float, float]
    radii: tuple[float, float]
    degrees: float = 0.0

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        height, width = size
        rows, columns = np.ogrid[0.5 : height + 0.5, 0.5 : width + 0.5]
        x, y = columns - self.center[0] * width, rows - self.center[1] * height
        cosine, sine = np.cos(np.deg2rad(self.degrees)), np.sin(np.deg2rad(self.degrees))
        along, across = x * cosine + y * sine, y * cosine - x * sine
        within = (along / (self.radii[0] * width)) ** 2 + (across / (self.radii[1] * height)) ** 2
        return np.asarray(within <= 1)


@dataclass(frozen=True)
class Rectangle:
    """A rectangle, by shares of the image's width (x) and height (y).

    corner: x, y of the upper left one, around which it is turned by `degrees` clockwise, in pixels.
    sides: along x and y, before that.
    """

    value: int
    corner: tuple[float, float]
    sides: tuple[float, float]
    degrees: float = 0.0

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        height, width = size
        corner = np.array([self.corner[0] * width, self.corner[1] * height])
        along, down = self.sides[0] * width, self.sides[1] * height
        cosine, sine = np.cos(np.deg2rad(self.degrees)), np.sin(np.deg2rad(self.degrees))
        right, below = np.array([cosine, sine]) * along, np.array([-sine, cosine]) * down
        ring = np.array([corner, corner + right, corner + right + below, corner + below])
        return fill_polygon(ring, size)


@dataclass(frozen=True)
class Drawn:
    """A mask drawn from regions: see `MaskSource`.

    path: the file that holds the outlines. image: the image's name, for messages.
    stated: (height, width) that the file gives for the image, or None where it gives none.
    background: the value where no region is.
    by_area: larger regions lie below smaller ones; otherwise a later region lies on an earlier.
    """

    path: Path
    image: str
    regions: tuple[Region, ...]
    stated: tuple[int, int] | None = None
    background: int = 0
    by_area: bool = False

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        if self.stated is not None and self.stated != size:
            why = "correct the file, or give the image that was annotated"
            if self.stated == size[::-1]:
                why = "the photo is turned by its EXIF orientation: annotate it as it is seen"
            raise InputError(
                f"{self.path}: says that {self.image} is {self.stated[1]}x{self.stated[0]}, but it "
                f"is {size[1]}x{size[0]}: {why}"
            )
        mask = np.full(size, self.background, dtype=np.uint8)
        try:
            covers = [(region.value, region.cover(size)) for region in self.regions]
        except InputError as error:
            raise InputError(f"{self.path}: image {self.image}: {error}") from error
        if self.by_area:
            covers.sort(key=lambda cover: -int(cover[1].sum()))  # stable: the file's order decides
        for value, covered in covers:
            mask[covered] = value
        return mask


def as_ring(numbers: Sequence[Any]) -> NDArray[np.float64]:
    """A flat list x1, y1, x2, y2, ... as (N, 2).

    Raises InputError, without a file's name, for an odd number of them, fewer than three corners,
    or anything that is not a finite number.
    """
    try:
        flat = np.asarray(numbers, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise InputError("an outline holds something that is not a number: correct it") from error
    if flat.size % 2 or flat.size < 6:
        raise InputError(
            f"an outline has {flat.size} numbers: at least three corners of x and y are needed"
        )
    if not np.isfinite(flat).all():
        raise InputError("an outline holds a number that is not finite: correct it")
    if np.abs(flat).max() > FARTHEST:
        raise InputError(
            f"an outline reaches to {np.abs(flat).max():g}, {FARTHEST:g} is allowed: correct it"
        )
    return flat.reshape(-1, 2)


def fill_polygon(ring: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (H, W) whose centers lie inside the closed outline `ring` (N, 2) of x and y."""
    height, width = size
    x0, y0 = ring[:, 0], ring[:, 1]
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    # An edge crosses the center lines y = row + 0.5 of the rows from `first` up to before `last`.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    count = last - first
    crossed = np.flatnonzero(count)
    if crossed.size == 0:
        return np.zeros(size, dtype=bool)
    top, bottom = int(first[crossed].min()), int(last[crossed].max())
    crossings = np.zeros((bottom - top) * (width + 1), dtype=np.int64)
    # In blocks: an outline of many long edges crosses more lines than memory has room for.
    blocks = np.cumsum(count[crossed]) // BLOCK
    for edges in np.split(crossed, np.flatnonzero(np.diff(blocks)) + 1):
        own = count[edges]
        edge = np.repeat(edges, own)
        start = np.repeat(np.cumsum(own) - own, own)
        row = first[edge] + np.arange(edge.size) - start
        share = (row + 0.5 - y0[edge]) / (y1[edge] - y0[edge])
        x = x0[edge] + share * (x1[edge] - x0[edge])
        column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        # Each crossing turns inside to outside and back for all that lies to the right of it.
        crossings += np.bincount((row - top) * (width + 1) + column, minlength=crossings.size)
    inside = np.cumsum(crossings.reshape(bottom - top, width + 1)[:, :-1], axis=1) & 1
    filled = np.zeros(size, dtype=bool)
    filled[top:bottom] = inside.astype(bool)
    return filled
