"""List files: a line an image, with its mask behind it, or a bare name."""

from __future__ import annotations

import re
from pathlib import Path

from pixelwise.data.class_tables import read_lines
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.folder_names import ALIASES
from pixelwise.data.layouts.pairing import MASK_LIKE, mask_source, sample_name
from pixelwise.data.source import Sample
from pixelwise.errors import InputError, refuse
from pixelwise.file_io import check_regular, is_file


def list_files(folder: Path) -> dict[str, Path]:
    """train, val and test to `train.txt`, `val.txt` and `test.txt`, those that are there."""
    found: dict[str, Path] = {}
    for split, aliases in ALIASES.items():
        for alias in aliases:
            if (folder / f"{alias}.txt").is_file():
                found.setdefault(split, folder / f"{alias}.txt")
    return found


def columns(line: str) -> list[str]:
    """The cells of a line: between tabs, else between commas, else between spaces."""
    for separator in (r"\t+", r"\s*,\s*", r"\s+"):
        cells = [cell for cell in re.split(separator, line.strip()) if cell]
        if len(cells) > 1:
            return cells
    return cells


def is_pair_list(path: Path) -> bool:
    """Whether the first line names an image and a mask. Reads the start of the file only."""
    try:
        check_regular(path)
        with path.open(encoding="utf-8-sig") as stream:
            cells = columns(stream.readline(10_000))
    except (OSError, UnicodeDecodeError):
        return False
    return len(cells) == 2 and all(Path(c).suffix.lower() in IMAGE_SUFFIXES for c in cells)


def read_pair_list(root: Path, path: Path) -> list[Sample]:
    """The samples of a list with two columns, paths below `root` or absolute.

    Raises InputError with a line for each entry that is not of this form or names no file.
    """
    problems: list[str] = []
    samples: list[Sample] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        cells = columns(line)
        if len(cells) != 2:
            problems.append(
                f"{path}: line {number} has {len(cells)} columns: write the image and the mask, "
                "with a tab between"
            )
            continue
        files = [root / cell for cell in cells]
        absent = [file for file in files if not is_file(file)]
        if absent:
            problems += [
                f"{file}: is not there: line {number} of {path} names it" for file in absent
            ]
            continue
        if files[1].suffix.lower() not in MASK_LIKE:
            problems.append(f"{files[1]}: is no mask: line {number} of {path} names it as one")
        samples.append(Sample(sample_name(root, files[0]), files[0], mask_source(files[1])))
    refuse(problems)
    if not samples:
        raise InputError(f"{path}: no images in it: write a line for each")
    return samples


def read_stems(path: Path) -> list[str]:
    """The names in a list with one column, in its order; further columns are left out.

    Raises InputError for a name that stands in it twice.
    """
    names = [columns(line)[0] for line in read_lines(path) if line.strip()]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{path}: {name} stands in it twice: remove one of the lines")
        seen.add(name)
    if not names:
        raise InputError(f"{path}: no images in it: write a line for each")
    return names


def choose(samples: list[Sample], stems: list[str], *, path: Path) -> list[Sample]:
    """The samples whose images are called so, with or without a suffix.

    Raises InputError with a line for each name that no image has.
    """
    by_stem = {sample.image.stem: sample for sample in samples}
    keys = [
        Path(s).stem if Path(s).suffix.lower() in IMAGE_SUFFIXES else Path(s).name for s in stems
    ]
    missing = [stem for stem, key in zip(stems, keys, strict=True) if key not in by_stem]
    if missing:
        raise InputError(
            *(f"{path}: {stem}: no image is called so: correct the list" for stem in missing)
        )
    return [by_stem[key] for key in keys]


def split_by_lists(
    samples: list[Sample], lists: dict[str, Path], notes: list[str]
) -> dict[str, list[Sample]]:
    """The samples that each split's list names, in its order; what no list names is counted."""
    splits = {split: choose(samples, read_stems(path), path=path) for split, path in lists.items()}
    listed = {sample.name for chosen in splits.values() for sample in chosen}
    rest = len(samples) - len(listed)
    left = f"; {rest} images stand in no list and are left out" if rest else ""
    notes.append("splits from " + ", ".join(path.name for path in lists.values()) + left)
    return splits
