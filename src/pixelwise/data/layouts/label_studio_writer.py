"""Write Label Studio: tasks.json with brushes or polygons, label_config.xml and images/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pixelwise.data.layouts.annotation_writing import (
    MASKS,
    POLYGONS,
    AnnotatedImage,
    AnnotationNames,
    Shape,
    Writer,
    write_file,
)
from pixelwise.data.layouts.label_studio import CONFIG
from pixelwise.data.rle import encode_brush

FILE = "tasks.json"
_CONTROLS = {POLYGONS: "PolygonLabels", MASKS: "BrushLabels"}


class LabelStudioWriter(Writer):
    """See `annotation_writing.Writer`. Tasks are written one after another."""

    KINDS: ClassVar[tuple[str, ...]] = (MASKS, POLYGONS)
    BY_CLASS: ClassVar[bool] = True
    IMAGES: ClassVar[str] = "images"

    def __init__(self, folder: Path, names: AnnotationNames, kind: str) -> None:
        self._folder, self._names = folder, names
        self._path = folder / FILE
        self._path.write_text("[", encoding="utf-8")
        self._tasks = 0
        self._kind = kind

    @staticmethod
    def files(names: Sequence[str]) -> list[str]:
        return [FILE, CONFIG]

    def add(self, image: AnnotatedImage) -> None:
        height, width = image.labels.shape
        results = []
        for number, shape in enumerate(image.shapes):
            kind, value = _value(shape, width, height)
            results.append(
                {
                    "id": f"region-{number}",
                    "type": kind,
                    "from_name": "tag",
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "value": value | {kind: [shape.name]},
                }
            )
        task = {
            "id": self._tasks + 1,
            "data": {"image": f"/data/local-files/?d={quote(image.file)}"},
            "annotations": [{"result": results, "was_cancelled": False, "ground_truth": False}],
        }
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write((",\n" if self._tasks else "\n") + json.dumps(task))
        self._tasks += 1

    def finish(self) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write("\n]\n")
        labels = "".join(
            f'    <Label value={quoteattr(name)} background="#{bytes(color).hex()}"/>\n'
            for name, color in self._names.colors.items()
        )
        control = _CONTROLS[self._kind]
        write_file(
            self._folder / CONFIG,
            f'<View>\n  <Image name="image" value="$image"/>\n'
            f'  <{control} name="tag" toName="image">\n{labels}  </{control}>\n</View>\n',
        )


def _value(shape: Shape, width: int, height: int) -> tuple[str, dict[str, Any]]:
    """The type of a result and its value, without the label."""
    if shape.ring is None:
        covered = shape.cover((height, width))
        return "brushlabels", {"format": "rle", "rle": encode_brush(covered)}
    percent = shape.ring * 100 / (width, height)
    return "polygonlabels", {"points": percent.tolist(), "closed": True}
