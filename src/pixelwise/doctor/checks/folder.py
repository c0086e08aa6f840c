"""Problems that the names of the files show, before any file is opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pixelwise.doctor.diagnosis import Finding, Kind, Severity, stopping
from pixelwise.doctor.pair_inspection import Scan
from pixelwise.errors import Fault, collapse
from pixelwise.file_io import exists

_LAYOUT_KINDS = {
    kind.id: kind
    for kind in (
        stopping("image-without-mask", "Images without a mask"),
        stopping("mask-without-image", "Masks without an image"),
        stopping("duplicate-stem", "Two files with the same name"),
        stopping("unsupported-format", "Images in an unsupported format"),
        stopping("stray-file", "Images outside the splits"),
        stopping("empty-split", "A split without images"),
        stopping("in-two-splits", "Images in two splits"),
    )
}
CLASS_TABLE = stopping("class-table", "The class table cannot be used")
LAYOUT = stopping("layout", "The folder cannot be used")
CASE_COLLISION = Kind("case-collision", Severity.WARNING, "Names that differ only in case")

_TABLE_SUFFIXES = frozenset({".toml", ".csv", ".txt"})


def layout_problems(scan: Scan) -> Iterator[Finding]:
    """Turn the problems that the layout reported into findings."""
    faults = [line for line in scan.layout_problems if isinstance(line, Fault)]
    for fault in faults:
        kind = _LAYOUT_KINDS.get(fault.kind, LAYOUT)
        message, remedy = split_line(fault.removeprefix(f"{fault.path}: "))
        yield kind.found([fault.path], message, remedy=remedy)
    for line in collapse([line for line in scan.layout_problems if line not in faults]):
        path = _path_in(line, scan.root)
        message, remedy = split_line(line.removeprefix(f"{path}: "))
        is_table = path.suffix in _TABLE_SUFFIXES and path.parent == scan.root
        kind = CLASS_TABLE if is_table else LAYOUT
        yield kind.found([] if path == scan.root else [path], message, remedy=remedy)


def split_line(line: str) -> tuple[str, str]:
    """Split a line of an InputError, without its file, into the problem and the remedy."""
    message, separator, remedy = line.rpartition(": ")
    return (message, remedy) if separator else (line, "fix the file or remove it")


def _path_in(line: str, root: Path) -> Path:
    """Return the file that a line begins with: its longest prefix before a `: ` that exists."""
    prefixes = line.split(": ")
    for end in range(len(prefixes) - 1, 0, -1):
        path = Path(": ".join(prefixes[:end]))
        if path.is_relative_to(root) and exists(path):
            return path
    return root


def name_collisions(scan: Scan) -> Iterator[Finding]:
    """Find names like `a.png` and `A.png`, which are one file on Windows and on most Macs."""
    names: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for pair in scan.pairs:
        for path in (pair.image.path, pair.mask.path):
            names[path.parent, path.name.casefold()].append(path)
    for paths in names.values():
        files = sorted(set(paths))
        if len(files) > 1:
            others = ", ".join(path.name for path in files[1:])
            yield CASE_COLLISION.found(
                files,
                f"has the same name as {others} on Windows and on most Macs, where a copy keeps "
                "only one of them",
                remedy="rename one of them and its partner",
            )
