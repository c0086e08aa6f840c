"""Write YOLO polygons: data.yaml, images/ and labels/NAME.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pixelwise.data.layouts.annotation_writing import (
    POLYGONS,
    AnnotatedImage,
    AnnotationNames,
    Writer,
    write_file,
)
from pixelwise.errors import InputError


class YoloWriter(Writer):
    """See `annotation_writing.Writer`."""

    KINDS: ClassVar[tuple[str, ...]] = (POLYGONS,)
    BY_CLASS: ClassVar[bool] = False
    IMAGES: ClassVar[str] = "images"

    def __init__(self, folder: Path, names: AnnotationNames, kind: str) -> None:
        self._folder = folder
        self._ids = {name: number for number, name in enumerate(names.shown)}

    @staticmethod
    def check(out: Path, names: AnnotationNames) -> None:
        if not names.shown:
            raise InputError(
                f"{out}: there is no class besides the background, and data.yaml needs one: "
                "write another format"
            )

    @staticmethod
    def files(names: Sequence[str]) -> list[str]:
        return ["data.yaml", *(f"labels/{name}.txt" for name in names)]

    def add(self, image: AnnotatedImage) -> None:
        height, width = image.labels.shape
        lines = []
        for shape in image.shapes:
            assert shape.ring is not None
            corners = (shape.ring / (width, height)).reshape(-1)
            lines.append(f"{self._ids[shape.name]} {' '.join(f'{x:.9g}' for x in corners)}\n")
        write_file(self._folder / "labels" / f"{image.name}.txt", "".join(lines))

    def finish(self) -> None:
        import yaml

        content = {"train": self.IMAGES, "nc": len(self._ids), "names": [*self._ids]}
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        write_file(self._folder / "data.yaml", text)
