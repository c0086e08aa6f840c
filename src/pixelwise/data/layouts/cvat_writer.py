"""Write CVAT's "segmentation mask 1.1": masks in the label colors, objects and labelmap.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.class_tables import VOID
from pixelwise.data.layouts.annotation_writing import (
    IGNORED,
    MASKS,
    AnnotatedImage,
    AnnotationNames,
    Shape,
    Writer,
    to_values,
    write_file,
)
from pixelwise.data.layouts.layout_classes import BACKGROUND
from pixelwise.data.png_encoding import encode_rgb
from pixelwise.data.voc_palette import voc_color
from pixelwise.errors import InputError

LIST = "ImageSets/Segmentation/default.txt"
_OBJECTS = 255
_COLORS = np.array([voc_color(value) for value in range(256)], np.uint8)


class CvatWriter(Writer):
    """See `annotation_writing.Writer`."""

    KINDS: ClassVar[tuple[str, ...]] = (MASKS,)
    BY_CLASS: ClassVar[bool] = False
    IMAGES: ClassVar[str] = "JPEGImages"

    def __init__(self, folder: Path, names: AnnotationNames, kind: str) -> None:
        self._folder, self._names = folder, names
        self._listed: list[str] = []

    @staticmethod
    def check(out: Path, names: AnnotationNames) -> None:
        wrong = [n for n in names.shown if ":" in n or n.startswith("#") or n.casefold() in VOID]
        wrong = [name for name in wrong if name != IGNORED]
        if wrong:
            raise InputError(
                f"{out}: the class {wrong[0]!r} cannot be in labelmap.txt of CVAT, which "
                "reserves `:`, `#` and the names of ignored pixels: rename the class, or write "
                "another format"
            )

    @staticmethod
    def files(names: Sequence[str]) -> list[str]:
        folders = "SegmentationClass", "SegmentationObject"
        return ["labelmap.txt", LIST, *(f"{f}/{name}.png" for name in names for f in folders)]

    def add(self, image: AnnotatedImage) -> None:
        self._listed.append(image.name)
        self._write("SegmentationClass", image.name, to_values(image.labels, self._names))
        objects = np.zeros(image.labels.shape, np.uint8)
        for number, shape in zip(_object_numbers(image.shapes), image.shapes, strict=True):
            shape.paint(objects, number)
        self._write("SegmentationObject", image.name, objects)

    def finish(self) -> None:
        names = {0: BACKGROUND} | {self._names.value_of[name]: name for name in self._names.shown}
        lines = ["# label:color_rgb:parts:actions"]
        for value, name in sorted(names.items()):
            lines.append(f"{name}:{','.join(map(str, _COLORS[value]))}::")
        write_file(self._folder / "labelmap.txt", "".join(f"{line}\n" for line in lines))
        write_file(self._folder / LIST, "".join(f"{name}\n" for name in self._listed))

    def _write(self, folder: str, name: str, numbers: NDArray[np.uint8]) -> None:
        write_file(self._folder / folder / f"{name}.png", encode_rgb(_COLORS[numbers]))


def _object_numbers(shapes: Sequence[Shape]) -> list[int]:
    """Return a number from 1 to 255 for each shape, because CVAT knows the colors of these only.

    If there are more shapes, the smallest ones of each class are one object.
    """
    names = sorted({shape.name for shape in shapes})
    own = _OBJECTS if len(shapes) <= _OBJECTS else _OBJECTS - len(names)
    shared = {name: number for number, name in enumerate(names, start=own + 1)}
    by_size = sorted(range(len(shapes)), key=lambda i: -shapes[i].pixels)
    numbers = {i: number for number, i in enumerate(by_size[:own], start=1)}
    return [numbers.get(i, shared[shape.name]) for i, shape in enumerate(shapes)]
