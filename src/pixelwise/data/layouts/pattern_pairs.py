"""Pair the images and masks that two path patterns describe."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.data.folder_listing import walk_files
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.pairing import MASK_LIKE, mask_source, sample_name
from pixelwise.data.layouts.path_patterns import Match, PathPattern
from pixelwise.data.matrix_files import MATRIX_SUFFIXES, MatrixFile
from pixelwise.data.source import SPLITS, MaskSource, Sample
from pixelwise.errors import Fault, raise_problems

MASK_FILES = MASK_LIKE | MATRIX_SUFFIXES

_Key = tuple[str, ...]


def pair_patterns(
    root: Path,
    images: PathPattern,
    masks: PathPattern,
    *,
    notes: list[str],
    variable: str | None = None,
    stated: bool = True,
) -> dict[str, list[Sample]]:
    """Pair the files of two patterns that agree in all names which both contain.

    Args:
        root: Folder of the dataset.
        images: Pattern of the images.
        masks: Pattern of the masks. A file that matches both patterns belongs to the one with more
            fixed characters.
        notes: Receives a note about files that match neither pattern, and about a test split
            without masks.
        variable: Variable of .mat and .npz masks.
        stated: Whether the user states the patterns. Detected ones must match every image and mask
            in their folders, because the ones that they leave out may have lost their partners.

    Returns:
        The samples of each split; of `all` alone if no pattern contains `{split}`.

    Raises:
        InputError: If a pattern matches no file, or with one line for each image without a mask,
            mask without an image, and name that several files share.
    """
    files = _Files(images, masks)
    files.find(root)
    names = _shared_names(images, masks)
    if not names:
        raise images.error(
            f"shares no name with {masks.origin} {masks.text!r}: write {{id}} into both"
        )
    image_of = _by_key(files.images, names)
    mask_of = _by_key(files.masks, names)
    if "split" in names:
        _leave_out_unlabeled_test(image_of, mask_of, names, notes)
    problems = [*_several(image_of), *_several(mask_of)]
    for key, (match, *_) in image_of.items():
        if key not in mask_of:
            text = f"has no mask: add {root / masks.fill(match.values)}, or remove the image"
            problems.append(Fault("image-without-mask", match.path, text))
    for key, (match, *_) in mask_of.items():
        if key not in image_of:
            text = f"has no image: add {root / images.fill(match.values)}, or remove the mask"
            problems.append(Fault("mask-without-image", match.path, text))
    if files.others and stated:
        notes.append(_skipped(root, files.others))
    elif files.others:
        text = (
            f"does not fit the detected structure, images {images.text} and masks {masks.text}: "
            "add its partner, move it away, or state the structure with --images and --masks"
        )
        problems += [Fault("stray-file", path, text) for path in files.others]
    raise_problems(problems)
    splits: dict[str, list[Sample]] = {}
    for key, (image, *_) in image_of.items():
        if key in mask_of:
            mask = mask_of[key][0]
            split = image.split or mask.split or "all"
            source = _mask_source(mask.path, variable)
            splits.setdefault(split, []).append(
                Sample(sample_name(root, image.path), image.path, source)
            )
    first = next((s.mask for found in splits.values() for s in found), None)
    if isinstance(first, MatrixFile):
        notes.append(f"the masks are the variable {first.chosen()} of {first.path.suffix} files")
    return {split: splits[split] for split in (*SPLITS, "all") if split in splits}


@dataclass
class _Files:
    """The files that match two patterns, and the images beside them that match none."""

    image_pattern: PathPattern
    mask_pattern: PathPattern
    images: list[Match] = field(default_factory=list)
    masks: list[Match] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    def find(self, root: Path) -> None:
        images = self._matches(root, self.image_pattern, IMAGE_SUFFIXES, "images")
        masks = self._matches(root, self.mask_pattern, MASK_FILES, "masks")
        for path in images.keys() & masks.keys():
            first = self.image_pattern.literals > self.mask_pattern.literals
            del (masks if first else images)[path]
        for matches, pattern in ((images, self.image_pattern), (masks, self.mask_pattern)):
            if not matches:
                raise pattern.error(
                    f"matches no file in {root} that {self._other(pattern)} does not match: "
                    "correct one of them"
                )
        self.images, self.masks = list(images.values()), list(masks.values())
        kinds = {root / self.image_pattern.base: IMAGE_SUFFIXES}  # a matrix is no image
        kinds[root / self.mask_pattern.base] = IMAGE_SUFFIXES | MASK_FILES
        known = images.keys() | masks.keys()
        self.others = [
            path
            for base in sorted(kinds.keys() - {root})
            for path in walk_files(base, kinds[base])
            if path not in known
        ]

    def _matches(
        self, root: Path, pattern: PathPattern, suffixes: Collection[str], kind: str
    ) -> dict[Path, Match]:
        found = list(pattern.find(root))
        matches = {m.path: m for m in found if m.path.suffix.lower() in suffixes}
        if not matches:
            reason = "matches no file"
            if found:
                reason += f" that can be read as {kind} (it matches {found[0].path.name})"
            allowed = ", ".join(sorted(suffixes))
            raise pattern.error(
                f"{reason} in {root}: correct the pattern; {kind} are files with the suffixes "
                f"{allowed}"
            )
        return matches

    def _other(self, pattern: PathPattern) -> str:
        other = self.mask_pattern if pattern is self.image_pattern else self.image_pattern
        return f"{other.origin} {other.text!r}"


def _shared_names(images: PathPattern, masks: PathPattern) -> tuple[str, ...]:
    """The names that identify a pair, and the wildcards if both patterns have the same."""
    shared = tuple(name for name in images.names if name in masks.names)
    if images.wildcards == masks.wildcards:
        shared += images.wildcards
    return () if shared == ("split",) else shared


def _by_key(matches: Iterable[Match], names: tuple[str, ...]) -> dict[_Key, list[Match]]:
    by_key: dict[_Key, list[Match]] = {}
    for match in matches:
        by_key.setdefault(match.key(names), []).append(match)
    return by_key


def _leave_out_unlabeled_test(
    image_of: dict[_Key, list[Match]],
    mask_of: dict[_Key, list[Match]],
    names: tuple[str, ...],
    notes: list[str],
) -> None:
    """Remove the images of a test split that has no masks at all, as published benchmarks do."""
    position = names.index("split")
    test = [key for key in image_of if key[position] == "test"]
    if test and len(test) < len(image_of) and all(key[position] != "test" for key in mask_of):
        for key in test:
            del image_of[key]
        notes.append(f"test is left out: its {len(test)} images have no masks")


def _several(found: dict[_Key, list[Match]]) -> list[str]:
    """Report names that several files share."""
    return [
        Fault(
            "duplicate-stem",
            other.path,
            f"has the same name as {first.path}: rename one, or write a pattern that tells them "
            "apart, with another name in braces or the same ** in both",
        )
        for first, *others in found.values()
        for other in others
    ]


def _skipped(root: Path, others: list[Path]) -> str:
    first = others[0]
    shown = first.relative_to(root) if first.is_relative_to(root) else first
    return f"skipped because no pattern matches them: {len(others)} files, such as {shown}"


def _mask_source(path: Path, variable: str | None) -> MaskSource:
    if path.suffix.lower() in MATRIX_SUFFIXES:
        return MatrixFile(path, variable)
    return mask_source(path)
