"""Faults that the names of files tell, before one is opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping
from pixelwise.errors import Fault
from pixelwise.file_io import exists

_OF_THE_LAYOUT = {
    kind.id: kind
    for kind in (
        stopping("image-without-mask", "Images without a mask"),
        stopping("mask-without-image", "Masks without an image"),
        stopping("duplicate-stem", "Two files of one name"),
        stopping("foreign-format", "Images of a format that is not read"),
        stopping("stray-file", "Images beside the splits"),
        stopping("empty-split", "A split without images"),
        stopping("in-two-splits", "Images in two splits"),
    )
}
CLASS_TABLE = stopping("class-table", "The class table cannot be used")
LAYOUT = stopping("layout", "The folder cannot be used as it is")
CASE_COLLISION = Kind("case-collision", Severity.WARNING, "Names that differ by case only")

_TABLES = frozenset({".toml", ".csv", ".txt"})


def faults_of_the_layout(scan: DatasetScan) -> Iterator[Finding]:
    """What the layout's reader said, sorted by kind where it told one."""
    for line in scan.faults:
        if isinstance(line, Fault):
            kind = _OF_THE_LAYOUT.get(line.kind, LAYOUT)
            sentence, remedy = split_line(line.removeprefix(f"{line.path}: "))
            yield kind.found([line.path], sentence, remedy=remedy)
            continue
        path = _file_of(line, scan.root)
        sentence, remedy = split_line(line.removeprefix(f"{path}: "))
        kind = CLASS_TABLE if path.suffix in _TABLES and path.parent == scan.root else LAYOUT
        yield kind.found([] if path == scan.root else [path], sentence, remedy=remedy)


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


def names_that_collide(scan: DatasetScan) -> Iterator[Finding]:
    """`a.png` and `A.png` in one folder are one file on Windows and on most Macs."""
    names: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for pair_report in scan.pair_reports:
        for path in (pair_report.image.path, pair_report.mask.path):
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
