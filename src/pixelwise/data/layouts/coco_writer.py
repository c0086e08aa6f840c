"""Write COCO: annotations/instances_default.json with polygons or RLE, and images/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pixelwise.data.layouts.annotation_writing import (
    MASKS,
    POLYGONS,
    AnnotatedImage,
    AnnotationNames,
    Shape,
    Writer,
)
from pixelwise.data.rle import encode_compressed

FILE = "annotations/instances_default.json"


class CocoWriter(Writer):
    """See `annotation_writing.Writer`. Annotations are written one image after another."""

    KINDS: ClassVar[tuple[str, ...]] = (POLYGONS, MASKS)
    BY_CLASS: ClassVar[bool] = False
    IMAGES: ClassVar[str] = "images"

    def __init__(self, folder: Path, names: AnnotationNames, kind: str) -> None:
        self._path = folder / FILE
        self._path.parent.mkdir(parents=True)
        self._path.write_text('{\n"annotations": [', encoding="utf-8")
        self._ids = {name: number for number, name in enumerate(names.shown, start=1)}
        self._images: list[dict[str, Any]] = []
        self._annotations = 0

    @staticmethod
    def files(names: Sequence[str]) -> list[str]:
        return [FILE]

    def add(self, image: AnnotatedImage) -> None:
        height, width = image.labels.shape
        number = len(self._images) + 1
        name = image.file.removeprefix(f"{self.IMAGES}/")
        about = {"id": number, "file_name": name, "width": width, "height": height}
        self._images.append(about)
        size = height, width
        with self._path.open("a", encoding="utf-8") as stream:
            for shape in image.shapes:
                stream.write(",\n" if self._annotations else "\n")
                self._annotations += 1
                entry = {"id": self._annotations, "image_id": number} | self._entry(shape, size)
                stream.write(json.dumps(entry))

    def finish(self) -> None:
        categories = [
            {"id": number, "name": name, "supercategory": ""} for name, number in self._ids.items()
        ]
        rest = {"images": self._images, "categories": categories}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write("\n],\n" + json.dumps(rest, indent=1)[1:] + "\n")

    def _entry(self, shape: Shape, size: tuple[int, int]) -> dict[str, Any]:
        left, top, right, bottom = shape.box
        segmentation: Any
        if shape.ring is not None:
            segmentation = [shape.ring.reshape(-1).tolist()]
        else:
            assert shape.crop is not None
            (column, row), width = shape.corner, shape.crop.shape[1]
            own = replace(shape, corner=(0, row)).cover((size[0], width))
            counts = encode_compressed(own, column, size[1] - column - width)
            segmentation = {"size": [*size], "counts": counts}
        return {
            "category_id": self._ids[shape.name],
            "segmentation": segmentation,
            "bbox": [left, top, right - left, bottom - top],
            "area": shape.pixels,
            "iscrowd": 0,
        }
