"""Assign images to splits by folders, list files, JSON or YAML lists, or names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pixelwise.data import json_yaml
from pixelwise.data.class_tables import read_lines
from pixelwise.data.classes import listed
from pixelwise.data.file_resolver import FileResolver
from pixelwise.data.folder_listing import list_files
from pixelwise.data.layouts.split_lists import columns
from pixelwise.data.layouts.split_names import split_of
from pixelwise.data.source import SPLITS, Sample
from pixelwise.errors import InputError, raise_problems
from pixelwise.file_io import read_text

_STRUCTURED = frozenset({".json", ".yaml", ".yml"})
_LISTS = frozenset({".txt", ".csv", ".lst"})
_PIECE = re.compile(r"_\d+$")

Stated = str | Sequence[str]


def assign_splits(
    root: Path,
    samples: Sequence[Sample],
    stated: Mapping[str, Stated] | str,
    origin: Path,
    notes: list[str],
) -> dict[str, list[Sample]]:
    """Assign samples to splits as stated in data.toml.

    Args:
        root: Folder of the dataset, which files and folders are relative to.
        samples: All samples.
        stated: By split: a folder of images, a list file (.txt, .csv, .json or .yaml), the name of
            an image, or a list of any of these. A single file of JSON or YAML holds the lists of
            all splits by name.
        origin: The file with this statement, for messages.
        notes: Receives the number of images in no split.

    Raises:
        InputError: If a name matches no image or several, or an image is in two splits.
    """
    if isinstance(stated, str):
        stated = _read_mapping(root / stated)
    names = ImageNames(root, samples)
    splits: dict[str, list[Sample]] = {}
    problems: list[str] = []
    for key, value in stated.items():
        split = split_of(key)
        if split is None:
            raise InputError(f"{origin}: splits.{key}: splits are {', '.join(SPLITS)}")
        for entry in [value] if isinstance(value, str) else value:
            found = _resolve(root, entry, key, names, origin, problems)
            splits.setdefault(split, []).extend(found)
    raise_problems(problems)
    splits = {split: list(dict.fromkeys(splits[split])) for split in SPLITS if split in splits}
    for split, found in splits.items():
        if not found:
            raise InputError(f"{origin}: splits.{split}: holds no image: name at least one")
    unlisted = len(samples) - len({sample.name for found in splits.values() for sample in found})
    skipped = f"; images skipped because no split names them: {unlisted}" if unlisted else ""
    notes.append(f"splits from {origin}{skipped}")
    return splits


def _resolve(
    root: Path, entry: str, key: str, names: ImageNames, origin: Path, problems: list[str]
) -> list[Sample]:
    """The samples that one entry stands for."""
    path = root / entry
    suffix = path.suffix.lower()
    if suffix in _STRUCTURED | _LISTS:
        lines = _read_list(path, key) if suffix in _STRUCTURED else list_lines(path)
        return names.find_all(lines, path, problems)
    if path.is_dir():
        return names.below(path)
    return names.find_all([entry], origin, problems)


class ImageNames:
    """Finds samples by what lists call them: their image or mask, or its number.

    Args:
        root: Folder of the dataset.
        samples: The samples.
    """

    def __init__(self, root: Path, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self._by_file = [{s.image: s for s in samples}, {s.mask.path: s for s in samples}]
        self._resolvers = [FileResolver(root, files) for files in self._by_file]

    def find(self, name: str) -> list[Sample]:
        """The samples that a name can stand for: one, or none, or several if it is ambiguous.

        A bare number also stands for the image with that number, so that `1` is `001_image.png`.
        """
        for files, resolver in zip(self._by_file, self._resolvers, strict=True):
            found = [files[path] for path in resolver.candidates(name) if path in files]
            if found:
                return found
        return self._by_number.get(int(name), []) if name.isdecimal() else []

    @cached_property
    def _by_number(self) -> dict[int, list[Sample]]:
        by_number: dict[int, list[Sample]] = {}
        for sample in self.samples:
            numbers = re.findall(r"\d+", sample.image.stem)
            if len(numbers) != 1:
                return {}
            by_number.setdefault(int(numbers[0]), []).append(sample)
        return by_number

    def find_all(self, names: Sequence[str], origin: Path, problems: list[str]) -> list[Sample]:
        """The sample of each name; adds one problem for all that stand for none or several."""
        found = [self.find(name) or self.find(columns(name)[0]) for name in names]
        for kind, wrong in (
            ("no image has this name", [n for n, f in zip(names, found, strict=True) if not f]),
            (
                "several images have this name",
                [n for n, f in zip(names, found, strict=True) if len(f) > 1],
            ),
        ):
            if wrong:
                count = f" ({len(wrong)} names in total)" if len(wrong) > 1 else ""
                problems.append(
                    f"{origin}: {listed(wrong, most=3)}: {kind}{count}: write the path of the image"
                )
        return [samples[0] for samples in found if len(samples) == 1]

    def below(self, folder: Path) -> list[Sample]:
        """The samples whose image or mask is in a folder or below it."""
        return [
            sample
            for sample in self.samples
            if sample.image.is_relative_to(folder) or sample.mask.path.is_relative_to(folder)
        ]


def list_lines(path: Path) -> list[str]:
    """The lines of a list file, without empty ones. Raises InputError if there are none."""
    lines = [line.strip() for line in read_lines(path) if line.strip()]
    if not lines:
        raise InputError(f"{path}: lists no images: write one line per image")
    return lines


def _read_list(path: Path, key: str) -> list[str]:
    """Read a list of names, or the list under `key`, from JSON or YAML."""
    content = _read_structured(path)
    names = content.get(key) if isinstance(content, dict) else content
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise InputError(f"{path}: is no list of image names: write a list of texts")
    return names


def _read_mapping(path: Path) -> dict[str, list[str]]:
    content = _read_structured(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: has no splits: write a list of names for train and for val")
    return {key: _read_list(path, key) for key in content if split_of(str(key)) is not None}


def _read_structured(path: Path) -> Any:
    if path.suffix.lower() == ".json":
        return json_yaml.read_json(path)
    import yaml

    try:
        return yaml.load(read_text(path), Loader=yaml.BaseLoader)  # which reads all values as text
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: invalid YAML ({reason}): correct the line") from error


def image_lists(folder: Path) -> dict[str, Path]:
    """The lists of the splits in a folder, such as train.txt, by split."""
    found: dict[str, Path] = {}
    for path in list_files(folder, {".txt"}) if folder.is_dir() else ():
        split = split_of(path.stem)
        if split is not None:
            found[split] = min(path, found.get(split, path), key=lambda each: len(each.name))
    return found


def split_by_image_lists(
    root: Path, samples: Sequence[Sample], lists: Mapping[str, Path], notes: list[str]
) -> dict[str, list[Sample]]:
    """Assign samples to splits by train.txt, val.txt and test.txt, which name images.

    The lists may also name pieces `NAME_0`, `NAME_1`, ... into which each image is to be cut. They
    then divide the images if all pieces of an image are in one list.

    Args:
        root: Folder of the dataset.
        samples: All samples.
        lists: List file by split.
        notes: Receives what was used.

    Raises:
        InputError: If a name matches no image or several.
    """
    names = ImageNames(root, samples)
    lines = {split: list_lines(path) for split, path in lists.items()}
    shown = ", ".join(path.name for path in lists.values())
    if not any(names.find(line) for found in lines.values() for line in found):
        pieces = {s: [_PIECE.sub("", line) for line in found] for s, found in lines.items()}
        if all(names.find(whole) for found in pieces.values() for whole in found):
            lines = {split: list(dict.fromkeys(found)) for split, found in pieces.items()}
            mixed = Counter(whole for found in lines.values() for whole in found)
            if max(mixed.values()) > 1:
                notes.append(
                    f"{shown} are not used: they name pieces of images, and pieces of "
                    f"{mixed.most_common(1)[0][0]} are in several splits"
                )
                return {"all": list(samples)}
    problems: list[str] = []
    splits = {
        split: names.find_all(lines[split], lists[split], problems)
        for split in SPLITS
        if split in lists
    }
    raise_problems(problems)
    if "train" not in splits:
        notes.append(f"{shown} are not used: no list names the images of train")
        return {"all": list(samples)}
    unlisted = len(samples) - len({sample.name for found in splits.values() for sample in found})
    skipped = f"; images skipped because no list names them: {unlisted}" if unlisted else ""
    notes.append(f"splits from {shown}{skipped}")
    return splits
