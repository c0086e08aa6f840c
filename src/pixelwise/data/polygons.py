"""Masks that are stored as polygons or run-length encoded, and rasterized when they are read.

A pixel belongs to a polygon if its center, (column + 0.5, row + 0.5), is inside by the even-odd
rule. Two polygons with a common edge then have no common pixel and leave no gap, whatever the
fractions of their corners are. (Pillow and OpenCV include the border pixels, which makes polygons
half a pixel larger; COCO rasterizes at five times the size. The results differ at the border.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError, raise_problems

FARTHEST = 1e9
"""Largest coordinate in pixels; beyond it coordinate differences lose pixel precision."""

BLOCK = 1 << 22
"""Number of crossings of edges with rows that are processed at once."""


class Region(Protocol):
    """One object of an image, and the value of its pixels in the mask."""

    @property
    def value(self) -> int: ...

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return which pixels (H, W) of an image of `size` (height, width) belong to the object.

        Raises:
            InputError: Without the file name, if the object does not fit the image.
        """


@dataclass(frozen=True, eq=False)
class Polygons:
    """The union of closed polygons.

    Args:
        value: Value in the mask.
        rings: (N, 2) corners x, y of each polygon; (0, 0) is the upper left corner of the image.
        relative: Whether x and y are fractions of width and height instead of pixels.
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


@dataclass(frozen=True, eq=False)
class EvenOdd:
    """A polygon with holes: the pixels that are inside an odd number of rings.

    Args:
        value: Value in the mask.
        rings: (N, 2) corners x, y in pixels, of the outline and of each hole.
    """

    value: int
    rings: tuple[NDArray[np.float64], ...]

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        covered = np.zeros(size, dtype=bool)
        for ring in self.rings:
            covered ^= fill_polygon(ring, size)
        return covered


@dataclass(frozen=True)
class Disc:
    """A circle; `center` (x, y) and `radius` are in pixels."""

    value: int
    center: tuple[float, float]
    radius: float

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        rows, columns = np.ogrid[0.5 : size[0] + 0.5, 0.5 : size[1] + 0.5]
        x, y = self.center
        with np.errstate(over="ignore"):  # infinity is also outside
            distance = (columns - x) ** 2 + (rows - y) ** 2
            return np.asarray(distance <= np.float64(self.radius) ** 2)


@dataclass(frozen=True)
class Ellipse:
    """An ellipse, in fractions of the image width (x) and height (y).

    Args:
        value: Value in the mask.
        center: x, y.
        radii: Along x and y, before the rotation.
        degrees: Clockwise rotation, applied in pixel coordinates.
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
    """A rectangle, in fractions of the image width (x) and height (y).

    Args:
        value: Value in the mask.
        corner: x, y of the upper left corner, the center of the rotation.
        sides: Along x and y, before the rotation.
        degrees: Clockwise rotation, applied in pixel coordinates.
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
class RegionMask:
    """A mask that is rasterized from regions; implements `MaskSource`.

    Args:
        path: The annotation file.
        image: Name of the image, for messages.
        regions: The objects; pixels outside all of them are 0.
        size: (height, width) of the image according to the file; None if it gives none.
        by_area: Whether smaller regions cover larger ones; otherwise later ones cover earlier ones.
        frame: (height, width) that the image had when relative regions were drawn: the image may
            have been resized since, but not rotated.
    """

    path: Path
    image: str
    regions: tuple[Region, ...]
    size: tuple[int, int] | None = None
    by_area: bool = False
    frame: tuple[int, int] | None = None

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        recorded = self.frame if self.frame == size[::-1] else self.size
        if recorded is not None and recorded != size:
            remedy = "correct the file, or use the image that was annotated"
            if recorded == size[::-1]:
                remedy = (
                    "its EXIF orientation may rotate it, so annotate the upright image; if it does "
                    "not, exchange width and height in the file"
                )
            raise InputError(
                f"{self.path}: the file gives {recorded[1]}x{recorded[0]} for {self.image}, "
                f"but the image is {size[1]}x{size[0]}: {remedy}"
            )
        mask = np.zeros(size, dtype=np.uint8)
        try:
            covers = [(region.value, *_crop(region.cover(size))) for region in self.regions]
        except InputError as error:
            raise InputError(f"{self.path}: image {self.image}: {error}") from error
        if self.by_area:
            # The sort is stable: ties keep the order of the file.
            covers.sort(key=lambda cover: -int(cover[2].sum()))
        for value, box, covered in covers:
            mask[box][covered] = value
        return mask


def _crop(covered: NDArray[np.bool_]) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Return the bounding box of the pixels of an object, and a copy of the mask in it.

    The masks of all objects of a large image would not fit into memory.
    """
    rows = np.flatnonzero(covered.any(axis=1))
    if rows.size == 0:
        return np.s_[:0, :0], np.zeros((0, 0), bool)
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(covered[top:bottom].any(axis=0))
    box = np.s_[top:bottom, int(columns[0]) : int(columns[-1]) + 1]
    return box, covered[box].copy()


def check_scale(masks: Iterable[RegionMask]) -> None:
    """Check that the outlines of an annotation file are in pixels.

    Fractions of the image's size, and degrees on the ground, are so close together that no outline
    covers a pixel.

    Raises:
        InputError: If every outline of a file is smaller than a pixel.
    """
    tiny: dict[Path, bool] = {}
    for mask in masks:
        if tiny.get(mask.path, True):
            outlines = [region for region in mask.regions if isinstance(region, Polygons | EvenOdd)]
            rings = [
                ring
                for region in outlines
                if isinstance(region, EvenOdd) or not region.relative
                for ring in region.rings
            ]
            if rings:
                tiny[mask.path] = all(map(_is_tiny, rings))
    text = (
        "every outline is smaller than a pixel, as fractions of the image's size or degrees would "
        "be: write the corners in pixels"
    )
    raise_problems([f"{path}: {text}" for path, all_tiny in tiny.items() if all_tiny])


def _is_tiny(ring: NDArray[np.float64]) -> bool:
    """Whether a ring may be in other units than pixels; the first pixel itself is 0..1."""
    fractions = np.abs(ring).max() <= 1 and (ring % 1).any()
    return bool(fractions or (np.ptp(ring, axis=0) < 1).all())


def as_ring(numbers: Sequence[Any]) -> NDArray[np.float64]:
    """Convert a flat list x1, y1, x2, y2, ... to (N, 2).

    Raises:
        InputError: Without the file name, for an odd number of values, fewer than three corners,
            or anything that is not a finite number.
    """
    try:
        stored = np.asarray(numbers)
        if stored.size and stored.dtype.kind not in "iuf":  # NumPy would read text as numbers
            raise TypeError(stored.dtype)
        flat = stored.astype(np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise InputError("a polygon has a coordinate that is not a number: correct it") from error
    if flat.size % 2:
        raise InputError(
            f"a polygon has {flat.size} numbers, so that a corner has x but no y: correct it"
        )
    if flat.size < 6:
        raise InputError(
            f"a polygon has {flat.size // 2} of at least 3 corners: correct it, or remove it"
        )
    if not np.isfinite(flat).all():
        raise InputError("a polygon has a coordinate that is not finite: correct it")
    if np.abs(flat).max() > FARTHEST:
        raise InputError(
            f"a polygon has the coordinate {np.abs(flat).max():g}, but at most {FARTHEST:g} is "
            "allowed: correct it"
        )
    return flat.reshape(-1, 2)


def fill_polygon(ring: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels (H, W) whose centers are inside the polygon with corners `ring`."""
    height, width = size
    x0, y0 = ring[:, 0], ring[:, 1]
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    # An edge crosses the center lines y = row + 0.5 of the rows `first` to `last` - 1.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    count = last - first
    crossed = np.flatnonzero(count)
    if crossed.size == 0:
        return np.zeros(size, dtype=bool)
    top, bottom = int(first[crossed].min()), int(last[crossed].max())
    crossings = np.zeros((bottom - top) * (width + 1), dtype=np.int64)
    # In blocks, because the crossings of many long edges may not fit into memory.
    blocks = np.cumsum(count[crossed]) // BLOCK
    for edges in np.split(crossed, np.flatnonzero(np.diff(blocks)) + 1):
        rows = count[edges]
        edge = np.repeat(edges, rows)
        start = np.repeat(np.cumsum(rows) - rows, rows)
        row = first[edge] + np.arange(edge.size) - start
        along = (row + 0.5 - y0[edge]) / (y1[edge] - y0[edge])
        x = x0[edge] + along * (x1[edge] - x0[edge])
        column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        # Each crossing toggles inside and outside for all pixels to its right.
        crossings += np.bincount((row - top) * (width + 1) + column, minlength=crossings.size)
    inside = np.cumsum(crossings.reshape(bottom - top, width + 1)[:, :-1], axis=1) & 1
    filled = np.zeros(size, dtype=bool)
    filled[top:bottom] = inside.astype(bool)
    return filled
