"""Groups of images that belong together: of one patient, field, flight or video.

A rule names the group of each image:

- a pattern on the name, such as `{group}_*`: `{group}` is the group and `*` any text, both without
  a slash. A pattern with a slash is compared with the end of the path, as in `{group}/*`. The
  suffix of the image is left out.
- `folder`: the folder that holds the image.
- `TABLE.csv:COLUMN`: a column of a table whose first column names the images.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.file_resolver import FileResolver
from pixelwise.data.source import Sample
from pixelwise.errors import InputError
from pixelwise.file_io import read_text

FORMS = (
    "a pattern such as '{group}_*', the word folder, or TABLE.csv:COLUMN, a column of a table "
    "whose first column names the images"
)
_COUNTED = re.compile(r"(?P<group>.*\d.*?)(?:[-_. ]*[A-Za-z]*[-_. ]*)\d+")
"""A name with a number before the number at its end, such as `patient12_slice007`."""


def group_images(root: Path, samples: Sequence[Sample], rule: str) -> list[str]:
    """Return the group of each image.

    Args:
        root: The folder of the dataset, which a table may be relative to.
        samples: The images.
        rule: A pattern, `folder`, or a column of a table.

    Raises:
        InputError: If the rule cannot be used or does not name the group of every image.
    """
    table, _, column = rule.rpartition(":")
    if table and not re.fullmatch(r"[A-Za-z]", table):
        return _by_table(root, samples, Path(table), column)
    if rule == "folder":
        return [sample.image.parent.as_posix() for sample in samples]
    return _by_pattern(samples, rule)


def suggested_group(sample: Sample) -> str:
    """Return the group that the name of an image suggests; empty if it suggests none.

    It is the part before the number at the end, if that part holds a number as well: names such as
    `img_0001` count images, but `flight3_0001` counts those of a flight.
    """
    match = _COUNTED.fullmatch(sample.image.stem)
    return match["group"] if match else ""


def _by_pattern(samples: Sequence[Sample], rule: str) -> list[str]:
    if rule.count("{group}") != 1:
        raise InputError(f"group_by {rule!r}: allowed are {FORMS}")
    parts = re.split(r"(\{group\}|\*)", rule)
    forms = {"{group}": "([^/]+?)", "*": "[^/]*"}
    pattern = re.compile("".join(forms.get(part, re.escape(part)) for part in parts))
    depth = rule.count("/") + 1
    groups, problems = [], []
    for sample in samples:
        path = Path(sample.name)
        path = path.with_name(sample.image.stem)
        match = pattern.fullmatch("/".join(path.parts[-depth:]))
        groups.append(match[1] if match else "")
        if match is None:
            problems.append(
                f"{sample.image}: does not fit the group_by pattern {rule!r}: correct the pattern, "
                "or rename the image"
            )
    if problems:
        raise InputError(*problems)
    return groups


def _by_table(root: Path, samples: Sequence[Sample], table: Path, column: str) -> list[str]:
    path = next((p for p in (root / table, table) if p.is_file()), None)
    if path is None:
        raise InputError(f"group_by {table}:{column}: there is no file {table} in {root} or here")
    rows = list(csv.reader(io.StringIO(read_text(path).removeprefix("\ufeff"))))
    header = rows[0] if rows else []
    if column not in header[1:]:
        raise InputError(
            f"{path}: has no column {column!r} after that of the images: its columns are "
            f"{', '.join(header) or 'none'}"
        )
    position = header.index(column, 1)
    resolver = FileResolver(root, [sample.image for sample in samples])
    group_of: dict[Path, str] = {}
    for number, row in enumerate(rows[1:], 2):
        for image in resolver.candidates(row[0]) if row and row[0] else ():
            group = row[position].strip() if position < len(row) else ""
            if not group:
                raise InputError(f"{path}: line {number} gives {row[0]} no {column}: add it")
            if group_of.setdefault(image, group) != group:
                raise InputError(
                    f"{path}: gives {image} the groups {group_of[image]!r} and {group!r}: keep one"
                )
    problems = [
        f"{sample.image}: is not in {path}, so its group is not known: add a line for it"
        for sample in samples
        if sample.image not in group_of
    ]
    if problems:
        raise InputError(*problems)
    return [group_of[sample.image] for sample in samples]
