"""Detect which files are images and which are their masks, whatever the folders are called.

Two folders, or two kinds of files in one folder, belong together if their files map one to one when
a constant prefix and suffix are removed from the names. Words in the paths and the content of a few
files tell which are the masks. Each reading is a pair of path patterns, so that a detected reading
and a stated one are read by the same code.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from pixelwise.data.folder_listing import walk_files
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.mask_evidence import Side, mask_side
from pixelwise.data.layouts.name_affixes import (
    MIN_MATCHED,
    Affixes,
    between_folders,
    cores,
    in_one_folder,
)
from pixelwise.data.layouts.path_patterns import is_pattern
from pixelwise.data.layouts.pattern_pairs import MASK_FILES
from pixelwise.data.layouts.split_names import split_in

_Parts = tuple[str, ...]

_MAX_SLOT = 3
"""Number of folder names at most in which the paths of an image and of its mask differ."""
_MAX_KINDS = 12
"""More folders than this side by side are scenes, not kinds of files."""
_SAMPLES = 3
"""Number of files of each side whose content is examined."""
_SPLIT = "{split}"


@dataclass(frozen=True)
class Reading:
    """One way to read a folder.

    Attributes:
        images: Pattern of the images.
        masks: Pattern of the masks.
        pairs: The mask of each image.
        sure: Whether the content of the files confirms which are the masks.
        distance: Number of folder names in which the path of a mask differs from its image's.
    """

    images: str
    masks: str
    pairs: Mapping[Path, Path] = field(repr=False)
    sure: bool = True
    distance: int = 0

    def replaces(self, other: Reading) -> bool:
        """Whether the other reading need not be considered beside this one."""
        shared = self.pairs.keys() & other.pairs.keys()
        if not shared:
            return False
        contained = other.pairs.items() <= self.pairs.items()
        few = len(other.pairs) < MIN_MATCHED * len(self.pairs)
        # The images of one scene with the masks of another, which have nearer partners.
        farther = other.distance > self.distance and (
            other.pairs.keys() <= self.pairs.keys()
            and set(other.pairs.values()) <= set(self.pairs.values())
        )
        # Few files of both kinds in each folder, read as one image and its mask per folder.
        takes_masks = len(other.pairs) < len(self.pairs) and not (
            other.pairs.keys().isdisjoint(self.pairs.values())
        )
        return contained or few or farther or takes_masks or self.sure > other.sure


@dataclass(frozen=True)
class _Leaf:
    """The files of all folders that differ only in the name of the split.

    Attributes:
        parts: The folder names, with `{split}` in place of the split.
        files: By split ("" for none): the files by name, which also has `{split}` in place of the
            split if the folder has it.
    """

    parts: _Parts
    files: dict[str, dict[str, Path]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [name for names in self.files.values() for name in names]


@dataclass(frozen=True)
class _Place:
    """Where two kinds of files occur: both folders are `before`, a slot of their own, `after`."""

    before: _Parts
    after: _Parts
    leaves: tuple[_Leaf, _Leaf]

    @property
    def split_at(self) -> tuple[bool, bool]:
        return any(_SPLIT in p for p in self.before), any(_SPLIT in p for p in self.after)


@dataclass(frozen=True)
class _Candidate:
    """Two kinds of files that may belong together, at all places where both occur."""

    places: tuple[_Place, ...]
    slots: tuple[_Parts, _Parts]
    affixes: tuple[Affixes, Affixes]

    def files(self) -> Iterator[tuple[dict[str, Path], dict[str, Path]]]:
        """At each place, the files of both kinds by the varying part of their names."""
        for place in self.places:
            first, second = (leaf.files for leaf in place.leaves)
            for split in sorted(first.keys() | second.keys()):
                one = first.get(split, first.get("", {}))
                other = second.get(split, second.get("", {}))
                yield self._by_core(one, 0), self._by_core(other, 1)

    def _by_core(self, files: dict[str, Path], side: int) -> dict[str, Path]:
        together = self.slots[0] == self.slots[1]
        own, other = self.affixes[side], self.affixes[1 - side]
        found = cores(files, own, other if together else None)
        return {core: files[name] for core, name in found.items()}

    def pattern(self, side: int, files: Iterable[Path]) -> str:
        """The pattern of one kind of files."""
        affixes = self.affixes[side]
        varying = ["id"] if affixes.constant else []
        varying += [f"folder{n}" if n > 1 else "folder" for n in range(1, 9)]
        before = _template([place.before for place in self.places], varying)
        after = _template([place.after for place in self.places], varying)
        name = affixes.prefix if affixes.constant else f"{affixes.prefix}{{id}}{affixes.suffix}"
        types = {path.suffix.lower() for path in files}
        # Of two files with the same name, neither may be chosen: the pattern matches both.
        used = {path.with_suffix("") for path in files}
        leaves = [place.leaves[side].files for place in self.places]
        present = [
            path for of_split in leaves for names in of_split.values() for path in names.values()
        ]
        types |= {
            path.suffix.lower()
            for path in present
            if path.with_suffix("") in used and not affixes.type
        }
        return "/".join(
            [*before, *self.slots[side], *after, name + (types.pop() if len(types) == 1 else ".*")]
        )


def find_readings(
    root: Path, *, images: Path | None = None, masks: Path | None = None
) -> list[Reading]:
    """Find all ways to read a folder as images and masks.

    Args:
        root: The folder.
        images: The folder that holds the images; None for any.
        masks: The folder that holds the masks; None for any.

    Returns:
        The readings that no better one replaces, those with the most pairs first.

    Raises:
        InputError: If a folder cannot be listed.
    """
    leaves = _leaves(root)
    readings = []
    depths = [len(folder.parts) - len(root.parts) for folder in (images, masks) if folder]
    slot = max([_MAX_SLOT, *depths])
    for candidate in (*_in_two_folders(leaves, slot), *_in_one_folder(leaves)):
        reading = _examine(candidate, images, masks)
        if reading is not None:
            readings.append(reading)
    return _best(readings)


def image_folders(root: Path) -> dict[str, int]:
    """The number of images and masks in each folder that holds some, the most first."""
    counts = files_outside(root, ())
    named = {folder.relative_to(root).as_posix(): count for folder, count in counts.items()}
    return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))


def _leaves(root: Path) -> dict[_Parts, _Leaf]:
    leaves: dict[_Parts, _Leaf] = {}
    for path in walk_files(root, IMAGE_SUFFIXES | MASK_FILES):
        parts, split = _abstract(path.parent.relative_to(root).parts)
        leaf = leaves.setdefault(parts, _Leaf(parts))
        name, own = split_in(path.stem) if split else (path.stem, "")
        leaf.files.setdefault(split, {})[(name if own == split else path.stem) + path.suffix] = path
    return leaves


def _abstract(parts: _Parts) -> tuple[_Parts, str]:
    """Replace the name of the split in the last folder name that holds one."""
    for position in range(len(parts) - 1, -1, -1):
        name, split = split_in(parts[position])
        if split is not None:
            return (*parts[:position], name, *parts[position + 1 :]), split
    return parts, ""


def _in_two_folders(leaves: dict[_Parts, _Leaf], slot: int) -> Iterator[_Candidate]:
    """Pairs of folders whose paths differ in at most `slot` names."""
    around: dict[tuple[_Parts, _Parts], dict[_Parts, _Leaf]] = defaultdict(dict)
    for parts, leaf in leaves.items():
        for start in range(len(parts) + 1):
            for end in range(start, min(start + slot, len(parts)) + 1):
                around[parts[:start], parts[end:]][parts[start:end]] = leaf
    places: dict[object, list[_Place]] = defaultdict(list)
    for (before, after), by_slot in around.items():
        if len(by_slot) > _MAX_KINDS:
            continue
        for one, other in combinations(sorted(by_slot), 2):
            if one[:1] != other[:1] and one[-1:] != other[-1:]:
                place = _Place(before, after, (by_slot[one], by_slot[other]))
                places[one, other, place.split_at].append(place)
    for key, all_found in places.items():
        one, other, _ = key  # type: ignore[misc]
        for found in _without_copies(all_found):
            first, second = ([n for p in found for n in p.leaves[side].names] for side in (0, 1))
            for affixes in between_folders(first, second):
                yield _Candidate(tuple(found), (one, other), affixes)


def _without_copies(places: list[_Place]) -> list[list[_Place]]:
    """Divide places where the same names have other file types: these are copies, not scenes."""
    by_type: dict[object, list[_Place]] = defaultdict(list)
    for place in places:
        names = (leaf.names for leaf in place.leaves)
        types = tuple(frozenset(Path(name).suffix.lower() for name in each) for each in names)
        by_type[types].append(place)
    stems = [
        {Path(name).stem for place in each for name in place.leaves[0].names}
        for each in by_type.values()
    ]
    return [*by_type.values()] if any(a == b for a, b in combinations(stems, 2)) else [places]


def _in_one_folder(leaves: dict[_Parts, _Leaf]) -> Iterator[_Candidate]:
    """Two kinds of files in one folder, or in many folders in the same way."""
    places: dict[object, list[_Place]] = defaultdict(list)
    for parts, leaf in leaves.items():
        for affixes in in_one_folder(leaf.names):
            place = _Place(parts, (), (leaf, leaf))
            places[affixes, place.split_at].append(place)
    for key, found in places.items():
        affixes, _ = key  # type: ignore[misc]
        if len(found) > 1 or not affixes[0].constant:
            yield _Candidate(tuple(found), ((), ()), affixes)


def _examine(candidate: _Candidate, images: Path | None, masks: Path | None) -> Reading | None:
    """Decide which side holds the masks; None if the files do not fit, or if it is unclear."""
    pairs: dict[Path, Path] = {}
    counts = [0, 0]
    for one, other in candidate.files():
        pairs |= {one[core]: other[core] for core in one.keys() & other.keys()}
        counts[0] += len(one)
        counts[1] += len(other)
    if not pairs or len(pairs) < MIN_MATCHED * min(counts):
        return None
    if len(set(pairs.values())) < len(pairs):
        return None
    sides = (sorted(pairs), sorted(pairs.values()))
    fitting = [k for k in (0, 1) if _is_in(sides[k], masks) and _is_in(sides[1 - k], images)]
    kinds = tuple(_side(candidate, k, sides[k]) for k in (0, 1))
    if len(fitting) == 1 and (images or masks):
        # What is stated needs no evidence; what is not must not look like its opposite.
        side, sure = fitting[0], True
        if not (images or kinds[1 - side].may_be_images) or not (masks or kinds[side].may_be_masks):
            return None
    else:
        evidence = mask_side(*kinds)
        if evidence is None or evidence[0] not in fitting:
            return None
        side, sure = evidence
    patterns = [candidate.pattern(k, sides[k]) for k in (0, 1)]
    fixed = [part for pattern in patterns for part in pattern.split("/") if part != "**"]
    if any(is_pattern(_without_names(part)) for part in fixed):
        return None
    if side == 0:
        pairs = {mask: image for image, mask in pairs.items()}
    distance = sum(len(slot) for slot in candidate.slots)
    return Reading(patterns[1 - side], patterns[side], pairs, sure, distance)


def _is_in(files: list[Path], folder: Path | None) -> bool:
    return folder is None or all(path.is_relative_to(folder) for path in files)


def _side(candidate: _Candidate, side: int, files: list[Path]) -> Side:
    step = max(1, len(files) // _SAMPLES)
    affixes = candidate.affixes[side]
    names = (*candidate.slots[side], affixes.prefix, affixes.suffix)
    return Side(names, files[::step][:_SAMPLES])


def _without_names(part: str) -> str:
    for name in (_SPLIT, "{id}", *(f"{{folder{n}}}" for n in ("", *range(2, 9)))):
        part = part.replace(name, "")
    return part.removesuffix(".*")


def _template(paths: list[_Parts], varying: list[str]) -> list[str]:
    """One path for several: a name in braces where they differ, ** if their lengths differ.

    The name of the split stays, wherever it is.
    """
    if len({len(path) for path in paths}) == 1:
        return [_name_template(names, varying) for names in zip(*paths, strict=True)]
    at = [next((i for i, name in enumerate(path) if _SPLIT in name), -1) for path in paths]
    if -1 in at:
        return ["**"]
    pairs = list(zip(paths, at, strict=True))
    return [
        *_template([path[:i] for path, i in pairs], varying),
        _name_template([path[i] for path, i in pairs], varying),
        *_template([path[i + 1 :] for path, i in pairs], varying),
    ]


def _name_template(names: Sequence[str], varying: list[str]) -> str:
    if len(set(names)) == 1:
        return names[0]
    if not all(_SPLIT in name for name in names):
        return f"{{{varying.pop(0)}}}"
    sides = zip(*(name.split(_SPLIT) for name in names), strict=True)
    return _SPLIT.join(_name_template(side, varying) for side in sides)


def _best(readings: list[Reading]) -> list[Reading]:
    """Leave out readings that others contain or clearly outweigh on the same images."""
    kept: list[Reading] = []
    for reading in sorted(
        readings, key=lambda r: (not r.sure, -len(r.pairs), r.distance, len(r.images + r.masks))
    ):
        if not any(better.replaces(reading) for better in kept):
            kept.append(reading)
    return sorted(kept, key=lambda r: -len(r.pairs))


def files_outside(root: Path, used: Collection[Path]) -> dict[Path, int]:
    """The number of images and masks in each folder that is not among `used`, nor a link to one."""
    counts = Counter(path.parent for path in walk_files(root, IMAGE_SUFFIXES | MASK_FILES))
    real = {os.path.realpath(folder) for folder in used}
    return {f: count for f, count in counts.items() if os.path.realpath(f) not in real}


def with_other_partners(
    readings: Sequence[Reading], root: Path, pairs: Mapping[Path, Path]
) -> list[Reading]:
    """Return the reading with `pairs` and those that give its images or masks other partners.

    Args:
        readings: All readings of the folder.
        root: The folder.
        pairs: What a layout found there by the names of the folders.

    Returns:
        The readings among which the user has to choose; none if there is no other one.
    """
    image_of = {mask: image for image, mask in pairs.items()}
    mask_at, image_at = _real(pairs), _real(image_of)
    others = [
        reading
        for reading in readings
        if reading.sure
        and len(reading.pairs) >= MIN_MATCHED * len(pairs)
        and any(
            mask_at.get(image, mask) != mask or image_at.get(mask, image) != image
            for image, mask in _real(reading.pairs).items()
        )
    ]
    if not others:
        return []
    own = next((r for r in readings if r.pairs == pairs), None)
    if own is None:
        images, masks = (
            Path(os.path.commonpath([path.parent for path in paths])).relative_to(root).as_posix()
            for paths in (pairs, image_of)
        )
        own = Reading(images, masks, pairs)
    return [own, *others]


def _real(pairs: Mapping[Path, Path]) -> dict[str, str]:
    """The pairs without links: a folder may be listed under several names."""
    return {os.path.realpath(one): os.path.realpath(other) for one, other in pairs.items()}
