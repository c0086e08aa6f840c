"""List files: one line per image, with an image and a mask, or with a bare name."""

from __future__ import annotations

import re
from pathlib import Path

from pixelwise.data.class_tables import read_lines
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.folder_names import ALIASES
from pixelwise.data.layouts.pairing import MASK_LIKE, mask_source, sample_name
from pixelwise.data.source import Sample
from pixelwise.errors import InputError, raise_problems
from pixelwise.file_io import check_regular, is_file


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
            cells = columns(stream.readline(10_000))
    except (OSError, UnicodeDecodeError):
        return False
    return len(cells) == 2 and all(Path(c).suffix.lower() in IMAGE_SUFFIXES for c in cells)


def read_pair_list(root: Path, path: Path) -> list[Sample]:
    """Read a list with an image and a mask per line, absolute or relative to `root`.

    Raises:
        InputError: With one line for each malformed entry and each missing file.
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
                "separated by a tab"
            )
            continue
        source = f"line {number} of {path}"
        image, mask = (root / cell for cell in cells)
        missing = [file for file in (image, mask) if not is_file(file)]
        if missing:
            problems += [
                f"{file}: does not exist, but {source} names it: add the file or correct the line"
                for file in missing
            ]
            continue
        if mask.suffix.lower() not in MASK_LIKE:
            problems.append(
                f"{mask}: is not a mask, but {source} names it as one: export the mask as PNG"
            )
        samples.append(Sample(sample_name(root, image), image, mask_source(mask)))
    raise_problems(problems)
    if not samples:
        raise InputError(f"{path}: lists no images: write one line per image")
    return samples


def read_stems(path: Path) -> list[str]:
    """Read the names in the first column of a list, in order.

    Raises:
        InputError: If the list is empty or contains a name twice.
    """
    names = [columns(line)[0] for line in read_lines(path) if line.strip()]
    if not names:
        raise InputError(f"{path}: lists no images: write one line per image")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{path}: lists {name} twice: remove one of the lines")
        seen.add(name)
    return names


def split_by_lists(
    samples: list[Sample], lists: dict[str, Path], notes: list[str]
) -> dict[str, list[Sample]]:
    """Assign samples to splits by their list files; a note counts the images in no list."""
    splits = {split: _select(samples, read_stems(path), path) for split, path in lists.items()}
    listed = {sample.name for selected in splits.values() for sample in selected}
    unlisted = len(samples) - len(listed)
    skipped = f"; images skipped because no list names them: {unlisted}" if unlisted else ""
    notes.append("splits from " + ", ".join(path.name for path in lists.values()) + skipped)
    return splits


def _select(samples: list[Sample], names: list[str], path: Path) -> list[Sample]:
    """The samples with these image names, with or without suffix, in the order of the list."""
    by_stem = {sample.image.stem: sample for sample in samples}
    stems = [
        Path(n).stem if Path(n).suffix.lower() in IMAGE_SUFFIXES else Path(n).name for n in names
    ]
    missing = [name for name, stem in zip(names, stems, strict=True) if stem not in by_stem]
    if missing:
        raise InputError(
            *(f"{path}: {name}: no image has this name: correct the list" for name in missing)
        )
    return [by_stem[stem] for stem in stems]
