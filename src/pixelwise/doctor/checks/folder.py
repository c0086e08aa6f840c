"""Faults that the names of files tell, before one is opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping
from pixelwise.doctor.survey import Survey
from pixelwise.errors import Fault
from pixelwise.files import exists

_OF_THE_LAYOUT = {
    kind.id: kind
    for kind in (
        stopping("image-without-mask", "Images without a mask"),
        stopping("mask-without-image", "Masks without an image"),
        stopping("duplicate-stem", "Two files of one name"),
        stopping("foreign-format", "Pictures of a format that is not read"),
        stopping("stray-file", "Pictures beside the splits"),
        stopping("empty-split", "A split without images"),
        stopping("in-two-splits", "Images in two splits"),
    )
}
CLASS_TABLE = stopping("class-table", "The class table cannot be used")
LAYOUT = stopping("layout", "The folder cannot be used as it is")
CASE_COLLISION = Kind("case-collision", Severity.WARNING, "Names that differ by case only")

_TABLES = frozenset({".toml", ".csv", ".txt"})


def faults_of_the_layout(survey: Survey) -> Iterator[Finding]:
    """What the layout's reader said, sorted by kind where it told one."""
    for line in survey.faults:
        if isinstance(line, Fault):
            kind = _OF_THE_LAYOUT.get(line.kind, LAYOUT)
            sentence, remedy = split_line(line.removeprefix(f"{line.path}: "))
            yield kind.found([line.path], sentence, remedy=remedy)
            continue
        path = _file_of(line, survey.root)
        sentence, remedy = split_line(line.removeprefix(f"{path}: "))
        kind = CLASS_TABLE if path.suffix in _TABLES and path.parent == survey.root else LAYOUT
        yield kind.found([] if path == survey.root else [path], sentence, remedy=remedy)


def split_line(line: str) -> tuple[str, str]:
    """A line of an InputError, without its file, as what is wrong and what to do."""
    sentence, separator, remedy = line.rpartition(": ")
    return (sentence, remedy) if separator else (line, "mend the file or remove it")


def _file_of(line: str, root: Path) -> Path:
    """The file that a line begins with: its longest part before a `: ` that exists."""
    parts = line.split(": ")
    for end in range(len(parts) - 1, 0, -1):
        path = Path(": ".join(parts[:end]))
        if path.is_relative_to(root) and exists(path):
            return path
    return root


def names_that_collide(survey: Survey) -> Iterator[Finding]:
    """`a.png` and `A.png` in one folder are one file on Windows and on most Macs."""
    names: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for sighting in survey.sightings:
        for path in (sighting.image.path, sighting.mask.path):
            names[path.parent, path.name.casefold()].append(path)
    for paths in names.values():
        files = sorted(set(paths))
        if len(files) > 1:
            yield CASE_COLLISION.found(
                files,
                "is the same name as " + ", ".join(path.name for path in files[1:]) + " on Windows "
                "and on most Macs, where a copy keeps one of them",
                remedy="rename one of them and its partner",
            )
