"""Write labelme: NAME.json beside each image, and labels.txt."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pixelwise.data.layouts.annotation_writing import (
    IGNORED,
    MASKS,
    POLYGONS,
    AnnotatedImage,
    AnnotationNames,
    Shape,
    Writer,
    as_list,
    write_file,
)
from pixelwise.data.png_encoding import encode_palette

_VERSION = "5.5.0"  # the first with oriented rectangles; later ones read it
_BLACK_AND_WHITE = bytes(3) + b"\xff" * 765


class LabelmeWriter(Writer):
    """See `annotation_writing.Writer`."""

    KINDS: ClassVar[tuple[str, ...]] = (POLYGONS, MASKS)
    BY_CLASS: ClassVar[bool] = False
    IMAGES: ClassVar[str] = ""

    def __init__(self, folder: Path, names: AnnotationNames, kind: str) -> None:
        self._folder, self._names = folder, names

    @staticmethod
    def files(names: Sequence[str]) -> list[str]:
        return [*(f"{name}.json" for name in names), "labels.txt"]

    def add(self, image: AnnotatedImage) -> None:
        height, width = image.labels.shape
        content = {
            "version": _VERSION,
            "flags": {},
            "shapes": [_shape(shape) for shape in image.shapes],
            "imagePath": image.file,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_file(self._folder / f"{image.name}.json", json.dumps(content, indent=2) + "\n")

    def finish(self) -> None:
        # labelme's own converters require the first two lines.
        names = [name for name in self._names.shown if name != IGNORED]
        lines = [IGNORED, "_background_", *names]
        write_file(self._folder / "labels.txt", "".join(f"{line}\n" for line in lines))


def _shape(shape: Shape) -> dict[str, Any]:
    about: dict[str, Any] = {"label": shape.name, "group_id": None, "description": "", "flags": {}}
    if shape.ring is not None:
        return about | {"points": as_list(shape.ring), "shape_type": "polygon", "mask": None}
    assert shape.crop is not None
    left, top, right, bottom = shape.box
    png = encode_palette(shape.crop.astype(np.uint8), _BLACK_AND_WHITE)
    return about | {
        "points": [[left, top], [right - 1, bottom - 1]],
        "shape_type": "mask",
        "mask": base64.b64encode(png).decode("ascii"),
    }
