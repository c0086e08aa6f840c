"""List files: one line per image, with an image and a mask, or with a bare name.

A name may contain spaces and commas: the lines are split into columns only if no image has any of
the whole lines as its name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.class_tables import read_lines
from pixelwise.data.file_resolver import Claims, FileResolver
from pixelwise.data.folder_listing import walk_files
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.error_handling import collect_errors, error_context
from pixelwise.data.layouts.folder_names import ALIASES
from pixelwise.data.layouts.pairing import MASK_LIKE, mask_source, sample_name
from pixelwise.data.source import Sample
from pixelwise.errors import InputError, raise_problems
from pixelwise.file_io import check_regular

_SEPARATOR = re.compile(r"\s*,\s*|\s+")


def list_files(folder: Path) -> dict[str, Path]:
    """`train.txt`, `val.txt` and `test.txt` (or aliases) in `folder`, by split."""
    lists: dict[str, Path] = {}
    for split, aliases in ALIASES.items():
        for alias in aliases:
            if (folder / f"{alias}.txt").is_file():
                lists.setdefault(split, folder / f"{alias}.txt")
    return lists


def columns(line: str) -> list[str]:
    """Split a line at tabs, else at commas, else at spaces."""
    for separator in (r"\t+", r"\s*,\s*", r"\s+"):
        cells = [cell for cell in re.split(separator, line.strip()) if cell]
        if len(cells) > 1:
            return cells
    return cells


def is_pair_list(path: Path) -> bool:
    """Whether the first line names an image and a mask. Reads only the start of the file."""
    try:
        check_regular(path)
        with path.open(encoding="utf-8-sig") as stream:
            return bool(_as_pairs(stream.readline(10_000)))
    except (OSError, UnicodeDecodeError):
        return False


def _as_pairs(line: str) -> list[tuple[str, str]]:
    """The ways to split a line into the names of two images: at tabs, else anywhere."""
    line = line.strip()
    separators = list(re.finditer(r"\t+", line)) or list(_SEPARATOR.finditer(line))
    pairs = [(line[: s.start()].strip(), line[s.end() :].strip()) for s in separators]
    return [pair for pair in pairs if all(Path(c).suffix.lower() in IMAGE_SUFFIXES for c in pair)]


def read_pair_list(root: Path, path: Path) -> list[Sample]:
    """Read a list with an image and a mask per line, absolute or relative to `root`.

    Raises:
        InputError: With one line for each malformed entry and each missing file.
    """
    problems: list[str] = []
    samples: list[Sample] = []
    files = FileResolver(root, walk_files(root, IMAGE_SUFFIXES | MASK_LIKE), "file")
    claims = Claims()
    for number, line in read_entries(path):
        where = f"line {number} of {path}"
        with collect_errors(problems):
            image, mask = _find_pair(files, line, path, number)
            if mask.suffix.lower() not in MASK_LIKE:
                raise InputError(
                    f"{mask}: is not a mask, but {where} names it as one: export the mask as PNG"
                )
            claims.add(image, where)
            claims.add(mask, f"{where} as the mask")
            samples.append(Sample(sample_name(root, image), image, mask_source(mask)))
    raise_problems(problems)
    return samples


def _find_pair(files: FileResolver, line: str, path: Path, number: int) -> tuple[Path, Path]:
    """The image and the mask of a line. Raises InputError unless exactly one reading exists."""
    pairs = _as_pairs(line)
    if not pairs:
        raise InputError(
            f"{path}: line {number} has {len(columns(line))} columns: write the image and the "
            "mask, separated by a tab"
        )
    near = [files.root, path.parent]
    found, missing, unclear = [], [], []
    for pair in pairs:
        matches = [
            [f for f in files.candidates(c, near) if f.suffix.lower() == Path(c).suffix.lower()]
            for c in pair
        ]
        missing += [cell for cell, match in zip(pair, matches, strict=True) if not match]
        several = [(c, m) for c, m in zip(pair, matches, strict=True) if len(m) > 1]
        unclear += [files.ambiguous(*each) for each in several]
        if [len(match) for match in matches] == [1, 1]:
            found.append((matches[0][0], matches[1][0]))
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{path}: line {number} names two files in several ways: separate them by a tab"
        )
    where = f"{path}: line {number}"
    absent = [
        f"{files.root / cell}: does not exist, but line {number} of {path} names it: add the file "
        "or correct the line"
        for cell in (missing if len(pairs) == 1 else missing[:1])
    ]
    raise InputError(*absent, *(f"{where}: {text}" for text in unclear))


def read_entries(path: Path) -> list[tuple[int, str]]:
    """Read the lines of a list that are not empty, with their numbers.

    Raises:
        InputError: If the list is empty or contains a line twice.
    """
    # Spaces around a name may belong to it: `FileResolver` tries it with and without them.
    lines = enumerate(read_lines(path), start=1)
    entries = [(number, line) for number, line in lines if line.strip()]
    if not entries:
        raise InputError(f"{path}: lists no images: write one line per image")
    first: dict[str, int] = {}
    for number, line in entries:
        if line in first:
            raise InputError(f"{path}: lists {line} twice: remove one of the lines")
        first[line] = number
    return entries


def listed_names(
    files: FileResolver, entries: list[tuple[int, str]], *near: Sequence[Path]
) -> list[tuple[int, str]]:
    """The names in the lines of a list: the whole lines, or the first columns if none is a name."""
    if any(files.candidates(line, *near) for _, line in entries):
        return entries
    return [(number, columns(line)[0]) for number, line in entries]


def split_by_lists(
    samples: list[Sample], lists: dict[str, Path], notes: list[str]
) -> dict[str, list[Sample]]:
    """Assign samples to splits by their list files; a note counts the images in no list."""
    splits = {split: _select(samples, path) for split, path in lists.items()}
    listed = {sample.name for selected in splits.values() for sample in selected}
    unlisted = len(samples) - len(listed)
    skipped = f"; images skipped because no list names them: {unlisted}" if unlisted else ""
    notes.append("splits from " + ", ".join(path.name for path in lists.values()) + skipped)
    return splits


def _select(samples: list[Sample], path: Path) -> list[Sample]:
    """The samples that a list names, with or without suffix, in the order of the list."""
    by_image = {sample.image: sample for sample in samples}
    images = FileResolver(path.parent, by_image)
    claims = Claims()
    problems: list[str] = []
    selected = []
    for number, line in listed_names(images, read_entries(path)):
        with collect_errors(problems), error_context(path):
            found = images.candidates(line)
            if not found:
                raise InputError(f"{line}: no image has this name: correct the list")
            if len(found) > 1:
                raise InputError(images.ambiguous(line, found))
            claims.add(found[0], f"line {number}")
            selected.append(by_image[found[0]])
    raise_problems(problems)
    return selected
