"""What the writers of annotations have in common: `labelme_writer`, `coco_writer` and others.

A writer stands beside the reader of its layout, and the readers' own rules decide what it writes:
`classes_above_background` says which names stand for the background and for ignored pixels. The
files of a writer are therefore a dataset that the reader understands, with the same masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE, Classes
from pixelwise.data.layouts.layout_classes import IGNORED_NAMES, classes_above_background
from pixelwise.errors import InputError

POLYGONS, MASKS = "polygons", "masks"
IGNORED = min(IGNORED_NAMES)


@dataclass(frozen=True, eq=False)
class Shape:
    """An object of an image: a polygon, or a mask.

    Attributes:
        name: Name of the class, or IGNORED.
        pixels: Number of pixels.
        ring: (N, 2) corners x, y of a polygon in pixels, with bridges to its holes, or None.
        crop: The pixels of a mask within its bounding box, or None.
        corner: Column and row of the upper left pixel of `crop`.
    """

    name: str
    pixels: int
    ring: NDArray[np.float64] | None = None
    crop: NDArray[np.bool_] | None = None
    corner: tuple[int, int] = (0, 0)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The bounding box: left, top, right and bottom edge in pixels."""
        if self.crop is not None:
            left, top = self.corner
            return left, top, left + self.crop.shape[1], top + self.crop.shape[0]
        assert self.ring is not None
        (left, top), (right, bottom) = (
            self.ring.min(axis=0).tolist(),
            self.ring.max(axis=0).tolist(),
        )
        return left, top, right, bottom

    def cover(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the pixels (H, W) of a mask in an image of `size` (height, width)."""
        covered = np.zeros(size, bool)
        self.paint(covered, 1)
        return covered

    def paint(self, numbers: NDArray[Any], value: int) -> None:
        """Set the pixels of a mask in `numbers` (H, W) to a value."""
        assert self.crop is not None
        left, top = self.corner
        box = numbers[top : top + self.crop.shape[0], left : left + self.crop.shape[1]]
        box[self.crop] = value


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image and what is to be written about it.

    Attributes:
        name: Its base name, unique in the dataset in every letter case.
        file: The path of its file in the dataset, with forward slashes.
        labels: (H, W) class indices of the upright image, and IGNORE.
        shapes: The objects. Pixels outside all of them are background.
    """

    name: str
    file: str
    labels: NDArray[np.uint8]
    shapes: Sequence[Shape]


class Writer(Protocol):
    """Writes the files of one format into an empty folder.

    Attributes:
        KINDS: The kinds of shapes that the format has, the default first.
        BY_CLASS: Whether a mask holds all pixels of a class, in place of a connected component.
        IMAGES: The folder of the images; "" for the folder of the dataset.
    """

    KINDS: ClassVar[tuple[str, ...]]
    BY_CLASS: ClassVar[bool]
    IMAGES: ClassVar[str]

    def __init__(self, folder: Path, names: AnnotationNames, kind: str) -> None: ...

    @staticmethod
    def check(out: Path, names: AnnotationNames) -> None:
        """Raise InputError if the format cannot have these names of classes."""
        return

    @staticmethod
    def files(names: Sequence[str]) -> list[str]:
        """Return the files that a dataset of these images has besides them."""

    def add(self, image: AnnotatedImage) -> None:
        """Write what belongs to an image."""

    def finish(self) -> None:
        """Write what belongs to the dataset."""


@dataclass(frozen=True, eq=False)
class AnnotationNames:
    """The names of the classes in annotations, and the classes that the reader makes of them.

    Attributes:
        of_index: The name of each class index and of IGNORE; the background is not among them.
        colors: The RGB color of each name.
        read: The classes as they are read again, in this order: the background first.
        value_of: The value of each name in the masks that are read.
    """

    of_index: dict[int, str]
    colors: dict[str, tuple[int, int, int]]
    read: Classes
    value_of: dict[str, int]

    @classmethod
    def of(cls, out: Path, classes: Classes) -> AnnotationNames:
        """Name classes; raise InputError for names that would be read as something else."""
        names = [*classes.names, *([IGNORED] if classes.ignore is not None else [])]
        reserved = IGNORED_NAMES.intersection(classes.names)
        if reserved:
            raise InputError(
                f"{out}: the class {min(reserved)!r} has the name of ignored regions in "
                "annotations: rename the class"
            )
        read, value_of = classes_above_background(out, names)
        background = [name for name in names if value_of[name] == 0]
        if len(background) > 1:
            raise InputError(
                f"{out}: the classes {' and '.join(map(repr, background))} are both the background "
                "in annotations: rename one of them"
            )
        of_index = {i: name for i, name in enumerate(classes.names) if value_of[name] > 0}
        colors = {name: classes.colors[i] for i, name in of_index.items()}
        if classes.ignore is not None:
            of_index[IGNORE] = IGNORED
            colors[IGNORED] = classes.ignore_color
        return cls(of_index, colors, read, value_of)

    @property
    def shown(self) -> list[str]:
        """All names, in the order of the classes."""
        return [*self.of_index.values()]


def to_values(labels: NDArray[np.uint8], names: AnnotationNames) -> NDArray[np.uint8]:
    """Return a label map (H, W) in the values of `AnnotationNames.read`."""
    table = np.zeros(256, np.uint8)
    for index, name in names.of_index.items():
        table[index] = names.value_of[name]
    return np.asarray(table[labels])


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def as_list(ring: NDArray[np.float64]) -> list[list[float]]:
    """Return corners as plain numbers."""
    corners: list[Any] = ring.tolist()
    return corners
