"""Groups of images that belong together: of one patient, field, flight or video.

A rule names the group of each image:

- a pattern on the name, such as `{group}_*`: `{group}` is the group and `*` any text, both without
  a slash. A pattern with a slash is compared with the end of the path, as in `{group}/*`. The
  suffix of the image is left out.
- `folder`: the folder that holds the image. Folders that differ only in the name of the split, as
  train/p1 and val/p1 do, are one group.
- `TABLE.csv:COLUMN`: a column of a table whose first column names the images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from pixelwise.data.file_resolver import FileResolver, fold, nfc, path_parts
from pixelwise.data.layouts.split_names import split_in
from pixelwise.data.source import Sample
from pixelwise.errors import InputError
from pixelwise.file_io import read_rows

FORMS = (
    "a pattern such as '{group}_*', the word folder, or TABLE.csv:COLUMN, a column of a table "
    "whose first column names the images"
)
_COUNTED = re.compile(r"(.*\D)\d+")
_COUNTER_NAME = re.compile(r"[-_. ]+[A-Za-z]*[-_. ]*$")
_YEAR = re.compile(r"(19|20)\d\d")


def find_groups(root: Path, samples: Sequence[Sample], rule: str) -> list[str] | None:
    """Return the group of each image by a rule, or else its own; None if there are no groups.

    Raises:
        InputError: As `group_images`.
    """
    if rule:
        return group_images(root, samples, rule)
    if any(sample.group for sample in samples):
        return [sample.group or sample.name for sample in samples]
    return None


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
        groups = _by_table(root, samples, Path(table), column)
    elif rule == "folder":
        groups = [_without_splits(sample.image.parent) for sample in samples]
    else:
        groups = _by_pattern(samples, rule)
    return [nfc(group) for group in groups]  # the names may come from several systems


def note_divided_groups(root: Path, splits: Mapping[str, Sequence[Sample]], rule: str) -> list[str]:
    """Return a note if groups are in train and in val, as a dataset with its own val may have them.

    Raises:
        InputError: As `group_images`.
    """
    if not rule or "train" not in splits or "val" not in splits:
        return []
    groups = group_images(root, [*splits["train"], *splits["val"]], rule)
    count = len(splits["train"])
    divided = {*groups[:count]} & {*groups[count:]}
    if not divided:
        return []
    return [
        f"the dataset's own val divides {len(divided)} of {len({*groups})} groups by {rule}, such "
        f"as {min(divided)}: the score is too high for new groups; cross-validate keeps groups "
        "together"
    ]


def suggested_group(sample: Sample) -> str:
    """Return the group that the name of an image suggests; empty if it suggests none.

    It is what precedes the number at the end, if that holds a number as well and not only a year:
    names such as `img_0001` count images, but `flight3_frame0001` those of a flight.
    """
    if sample.group:
        return sample.group
    match = _COUNTED.fullmatch(sample.image.stem)
    group = _COUNTER_NAME.sub("", match[1]) if match else ""
    return group if re.search(r"\d", group) and not _YEAR.fullmatch(group) else ""


def _without_splits(folder: Path) -> str:
    return "/".join(part for part in folder.parts if split_in(part)[0] != "{split}")


def _by_pattern(samples: Sequence[Sample], rule: str) -> list[str]:
    if rule.count("{group}") != 1:
        raise InputError(f"group_by {rule!r}: allowed are {FORMS}")
    parts = re.split(r"(\{group\}|\*)", nfc(rule))
    forms = {"{group}": "([^/]+?)", "*": "[^/]*"}
    pattern = re.compile("".join(forms.get(part, re.escape(part)) for part in parts))
    depth = rule.count("/") + 1
    groups, problems = [], []
    for sample in samples:
        path = Path(sample.name)
        path = path.with_name(sample.image.stem)
        match = pattern.fullmatch(nfc("/".join(path.parts[-depth:])))
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
    rows = read_rows(path)
    header = rows[0] if rows else []
    if header[1:].count(column) != 1:
        raise InputError(
            f"{path}: has {'several columns' if column in header[1:] else 'no column'} {column!r} "
            f"after that of the images: its columns are {', '.join(header) or 'none'}"
        )
    position = header.index(column, 1)
    resolver = FileResolver(root, [sample.image for sample in samples])
    line_of: dict[Path, _Line] = {}
    for number, row in enumerate(rows[1:], 2):
        for image in resolver.candidates(row[0]) if row and row[0] else ():
            group = row[position] if position < len(row) else ""
            if not group:
                raise InputError(f"{path}: line {number} gives {row[0]} no {column}: add it")
            own = _Line(_shared_folders(image, row[0]), number, row[0], group)
            other = line_of.setdefault(image, own)
            if own.folders > other.folders:
                line_of[image] = own
            elif own.folders == other.folders and own.group != other.group:
                raise InputError(
                    f"{path}: gives {image} the groups {other.group!r} and {group!r}: keep one"
                )
    problems = []
    named: dict[int, Path] = {}
    for image in (sample.image for sample in samples):
        line = line_of.get(image)
        if line is None:
            problems.append(
                f"{image}: is not in {path}, so its group is not known: add a line for it"
            )
        elif named.setdefault(line.number, image) != image:
            problems.append(
                f"{path}: line {line.number}: {line.name} can be {named[line.number]} or {image}: "
                "write its folder as well"
            )
    if problems:
        raise InputError(*problems)
    return [line_of[sample.image].group for sample in samples]


@dataclass(frozen=True)
class _Line:
    """A line of a table, and how many trailing folders it shares with the image that it names."""

    folders: int
    number: int
    name: str
    group: str


def _shared_folders(image: Path, name: str) -> int:
    folders = path_parts(name.replace("\\", "/"))[:-1]
    pairs = zip(reversed(folders), reversed(image.parent.parts), strict=False)
    return len([*takewhile(lambda pair: fold(pair[0]) == fold(pair[1]), pairs)])
