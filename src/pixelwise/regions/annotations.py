"""Write label maps as the annotations of a labeling tool, in a folder that is again a dataset.

OUT/.pixelwise-annotations.json holds the SHA-256 of each file that was written. By it the next call
recognizes annotations that were corrected since, and replaces only files that nobody has changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np

from pixelwise.data.classes import Classes
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.file_resolver import fold
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.annotation_writing import (
    MASKS,
    AnnotatedImage,
    AnnotationNames,
    Shape,
    Writer,
)
from pixelwise.data.layouts.coco_writer import CocoWriter
from pixelwise.data.layouts.cvat_writer import CvatWriter
from pixelwise.data.layouts.label_studio_writer import LabelStudioWriter
from pixelwise.data.layouts.labelme_writer import LabelmeWriter
from pixelwise.data.layouts.yolo_writer import YoloWriter
from pixelwise.errors import InputError
from pixelwise.file_io import (
    flush_folder,
    flush_tree,
    make_folder,
    sha256,
    write_errors,
    write_text,
)
from pixelwise.overwriting import files_of_others, json_mark
from pixelwise.regions.components import Labels, find_components, require_ndimage
from pixelwise.regions.outlines import bridge_holes, trace_outlines

WRITERS: dict[str, type[Writer]] = {
    "labelme": LabelmeWriter,
    "coco": CocoWriter,
    "cvat": CvatWriter,
    "label-studio": LabelStudioWriter,
    "yolo": YoloWriter,
}
MANIFEST = ".pixelwise-annotations.json"
STAGED = ".pixelwise-annotations.part"
_UNUSABLE = re.compile(r"^\.|[\\\x00-\x1f\x85\u2028\u2029\ud800-\udfff]")
"""Hidden files, which no reader lists, and characters that separate folders or lines."""


class AnnotationFolder:
    """A folder of annotations that is to be written.

    Args:
        out: The folder. It becomes a dataset that `pixelwise train` and the tool read.
        to: The format, one of WRITERS.
        images: The images, which are copied into the folder.
        classes: The classes of the labels. The one called `background` has no shapes.
        shapes: "polygons" or "masks"; None for the first that the format has.
        tolerance: Largest distance in pixels between a polygon and the border of its component.
        overwrite: Whether to replace files that were changed or not written here.

    Raises:
        InputError: If the format or `shapes` is not available, a class has a name that the format
            reserves, an image lies in `out`, or a file in `out` must not be replaced.
    """

    def __init__(
        self,
        out: str | Path,
        to: str,
        images: Sequence[Path],
        classes: Classes,
        *,
        shapes: str | None = None,
        tolerance: float = 1.0,
        overwrite: bool = False,
    ) -> None:
        self.out, self.images, self.tolerance = Path(out), images, tolerance
        self.kind = shape_kind(to, shapes)
        self._writer, self._overwrite = WRITERS[to], overwrite
        self._names = AnnotationNames.of(self.out, classes)
        self._writer.check(self.out, self._names)
        self.base_names = dict(zip(images, unique_names(images), strict=True))
        self._check(images)

    def write(
        self,
        read: Callable[[Path], Labels],
        *,
        images: Sequence[Path] | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Write the images and their annotations, and remove those of an earlier call.

        The caller has locked the folder.

        Args:
            read: Returns the class indices (H, W) of the upright image, and IGNORE.
            images: The images to write, if they are not all.
            progress: Called with (done, total) after each image.

        Raises:
            InputError: If a file in the folder must not be replaced, or cannot be written.
            MissingPackageError: If a package for polygons is not installed.
        """
        chosen = self.images if images is None else images
        staged = self.out / STAGED
        try:
            with write_errors(self.out):
                shutil.rmtree(staged, ignore_errors=True)
                make_folder(staged)
                writer = self._writer(staged, self._names, self.kind)
                for done, path in enumerate(chosen, start=1):
                    writer.add(self._image(staged, path, read(path)))
                    if progress is not None:
                        progress(done, len(chosen))
                writer.finish()
                self._replace(staged, self._check(chosen))
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _file(self, path: Path) -> str:
        name = f"{self.base_names[path]}{path.suffix}"
        return f"{self._writer.IMAGES}/{name}" if self._writer.IMAGES else name

    def _image(self, staged: Path, path: Path, labels: Labels) -> AnnotatedImage:
        file = self._file(path)
        if not _is_same(path, self.out / file):
            (staged / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staged / file)
        shapes = find_shapes(
            labels, self._names, self.kind, by_class=self._writer.BY_CLASS, tolerance=self.tolerance
        )
        return AnnotatedImage(self.base_names[path], file, labels, shapes)

    def _check(self, images: Sequence[Path]) -> dict[str, str]:
        """Check what is in the folder; return the files of an earlier call that are to be removed.

        A file of an earlier call that was corrected stays in the dataset, where its classes could
        be numbered otherwise: without a file that replaces it, it is refused even on request.
        """
        for path, name in self.base_names.items():
            if _UNUSABLE.search(name):
                raise InputError(
                    f"{os.fspath(path)!r}: its name cannot be written into annotations: rename the "
                    "file"
                )
        own = {path: self.out / self._file(path) for path in images}
        inside = [p for p in images if p.resolve().is_relative_to(self.out.resolve())]
        for path in inside:
            if not _is_same(path, own[path]):
                raise InputError(
                    f"{path}: lies in {self.out}, where the annotations and copies of the images "
                    "would be mixed with the originals: choose another --out"
                )
        names = [self.base_names[path] for path in images]
        planned = [*self._writer.files(names), *(self._file(p) for p in images if p not in inside)]
        before = read_manifest(self.out)
        changed = {n for n, digest in before.items() if _is_changed(self.out / n, digest)}
        others = [n for n in planned if n not in before and os.path.lexists(self.out / n)]
        kept = {self._file(path) for path in inside}
        stale = before.keys() - set(planned) - kept
        corrected = sorted(stale & changed)
        others += sorted(changed.intersection(planned))
        if others and not self._overwrite:
            raise files_of_others([self.out / name for name in others], self.out)
        if corrected:
            raise InputError(
                f"{self.out}: holds {len(corrected)} files of an earlier call that were changed "
                f"since and that this one does not replace, such as {corrected[0]}: choose "
                "another --out"
            )
        return {name: before[name] for name in stale}

    def _replace(self, staged: Path, stale: dict[str, str]) -> None:
        """Give the staged files their names. The manifest knows all files at every moment."""
        flush_tree(staged)
        files = [path for path in sorted(staged.rglob("*")) if path.is_file()]
        digests = {path.relative_to(staged).as_posix(): sha256(path) for path in files}
        before = read_manifest(self.out)
        kept = {self._file(p) for p in self.images if _is_same(p, self.out / self._file(p))}
        digests |= {name: before[name] for name in kept if name in before}
        # Until all files are replaced, both contents of each are known.
        both = {name: f"{before.get(name, '')} {digest}" for name, digest in digests.items()}
        _write_manifest(self.out, before | both)
        for name in stale:
            (self.out / name).unlink(missing_ok=True)
        for path in files:
            target = self.out / path.relative_to(staged)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
            flush_folder(target.parent)
        _write_manifest(self.out, digests)


def shape_kind(to: str, shapes: str | None) -> str:
    """Return the kind of shapes of a format; raise InputError if it does not have them."""
    if to not in WRITERS:
        raise InputError(f"format {to!r}: allowed are {', '.join(WRITERS)}")
    kinds = WRITERS[to].KINDS
    if shapes is not None and shapes not in kinds:
        raise InputError(f"shapes {shapes!r}: {to} has {' and '.join(kinds)}: choose from these")
    return shapes or kinds[0]


def find_shapes(
    labels: Labels, names: AnnotationNames, kind: str, *, by_class: bool, tolerance: float
) -> list[Shape]:
    """Return the shapes of a label map, by class.

    Args:
        labels: (H, W) class indices and IGNORE.
        names: The names of the classes that have shapes.
        kind: POLYGONS or MASKS.
        by_class: Whether a mask holds all pixels of a class.
        tolerance: Of polygons.
    """
    if kind == MASKS and by_class:
        covers = ((name, labels == index) for index, name in names.of_index.items())
        return [Shape(name, int(c.sum()), crop=c) for name, c in covers if c.any()]
    components = find_components(labels)
    name_of = [names.of_index.get(int(index)) for index in components.labels]
    sizes = components.sizes.tolist()
    if kind == MASKS:
        boxes = require_ndimage().find_objects(components.ids + 1)
        return [
            Shape(
                name,
                sizes[number],
                crop=components.ids[boxes[number]] == number,
                corner=(boxes[number][1].start, boxes[number][0].start),
            )
            for number, name in enumerate(name_of)
            if name is not None
        ]
    traced = np.array([name is not None for name in name_of])
    outlines = trace_outlines(components.ids, traced, components.sizes, tolerance)
    return [
        Shape(name, sizes[number], bridge_holes(outlines[number]))
        for number, name in enumerate(name_of)
        if name is not None
    ]


def unique_names(images: Sequence[Path]) -> list[str]:
    """Return a base name for each image, unique in every form in which readers look for it.

    It is the stem, if necessary with the suffix, the folder or a number.
    """
    names = [path.stem for path in images]
    forms: list[Callable[[int, Path], str]] = [
        lambda _, path: f"{path.stem}_{path.suffix[1:]}",
        lambda _, path: f"{path.resolve().parent.name}_{path.stem}_{path.suffix[1:]}",
        lambda number, path: f"{path.stem}_{number}",
    ]
    for form in forms:
        count = Counter(map(_fold, names))
        names = [
            name if count[_fold(name)] == 1 else form(number, path)
            for number, (path, name) in enumerate(zip(images, names, strict=True), start=1)
        ]
    first: dict[str, Path] = {}
    for path, name in zip(images, names, strict=True):
        other = first.setdefault(_fold(name), path)
        if other != path:
            raise InputError(f"{path}: would be {name} like {other}: rename one of them")
    return names


def read_manifest(out: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that was written into a folder; {} if none was.

    While the files are being replaced, it is that of the old and of the new content.
    """
    try:
        files = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["files"]
        named = {str(name): str(digest) for name, digest in files.items()}
        return {n: digest for n, digest in named.items() if _is_inside(n)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _write_manifest(out: Path, files: dict[str, str]) -> None:
    listed = json.dumps(dict(sorted(files.items())), indent=1)
    write_text(out / MANIFEST, f'{{{json_mark("predict")},\n"files": {listed}}}\n')


def _is_changed(path: Path, digest: str) -> bool:
    return os.path.lexists(path) and (not path.is_file() or sha256(path) not in digest.split())


def _is_same(path: Path, other: Path) -> bool:
    return other.exists() and path.samefile(other)


def _is_inside(name: str) -> bool:
    """Whether a name leads to no file outside the folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _fold(name: str) -> str:
    """Return the form in which readers take names as equal; see `FileResolver.candidates`."""
    name = unquote(name).strip()
    stem, dot, suffix = name.rpartition(".")
    return fold(stem if dot + suffix.lower() in IMAGE_SUFFIXES else name)
