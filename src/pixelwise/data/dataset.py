"""A checked data set: every pair opened once before anything is computed from it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.data import layouts
from pixelwise.data.classes import Classes, distinct_colours
from pixelwise.data.images import mask_palette, read_image, turned_by_exif
from pixelwise.data.source import MaskFile, MaskSource, Sample, Source
from pixelwise.errors import InputError

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Progress = Callable[[int, int], None]
"""Called with (done, total) while the files are checked."""

MAX_GUESSED_CLASSES = 64
"""More different values than this, without a class table, is a blurred or scaled mask."""

DEFAULT_CACHE_BYTES = 2 << 30


@dataclass
class SegmentationData:
    """Pairs by split, the classes, and what was assumed on the way.

    sizes: (height, width) of each sample by name, as the network will see it.
    pixel_counts: (C,) pixels of each class by split, IGNORE left out.
    """

    root: Path
    layout: str
    splits: dict[str, list[Sample]]
    classes: Classes
    notes: list[str]
    sizes: dict[str, tuple[int, int]]
    pixel_counts: dict[str, NDArray[np.int64]]
    _cache: dict[str, tuple[Image, Mask]] = field(default_factory=dict, repr=False)

    def read(self, sample: Sample) -> tuple[Image, Mask]:
        """The photograph (H, W, 3) RGB and its mask (H, W) as class indices and IGNORE."""
        cached = self._cache.get(sample.name)
        if cached is not None:
            return cached
        image = read_image(sample.image)
        return image, _index_mask(sample.mask, image.shape[:2], self.classes)


def open_dataset(
    root: Path,
    *,
    splits: tuple[str, ...] | None = None,
    classes: Classes | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    progress: Progress | None = None,
) -> SegmentationData:
    """Find the layout of `root`, open every file of `splits` once, and settle the classes.

    splits: the ones to check and keep (None: all). A folder without splits is divided into train
        and val by `seed`, `val_fraction` of it to val; a folder with train but no val likewise.
    classes: the table to hold the masks against, in place of the folder's own (a bundle's).
    cache_bytes: decoded pictures are kept up to this much memory.

    Raises InputError with a line for each fault: pairs, unreadable files, sizes, mask values.
    """
    source = layouts.find(root)
    divide(source, val_fraction=val_fraction, seed=seed)
    if splits is not None:
        for split in splits:
            if split not in source.splits:
                have = ", ".join(source.splits)
                raise InputError(f"{root}: has no split {split!r}: it has {have}")
        source.splits = {split: source.splits[split] for split in splits}
    if classes is not None:
        _hold_against(source, classes)
    return _checked(source, cache_bytes=cache_bytes, progress=progress)


def _hold_against(source: Source, classes: Classes) -> None:
    """Read the masks by a model's classes, unless the folder has the same names by other values."""
    if source.classes is None:
        source.classes, source.rgb_allowed = classes, True
        source.notes.append("mask values are read by the bundle's classes")
    elif source.classes.names != classes.names:
        raise InputError(
            f"{source.root}: its classes are {', '.join(source.classes.names)}, the bundle's are "
            f"{', '.join(classes.names)}: score on data with the classes it was trained on"
        )


def divide(source: Source, *, val_fraction: float, seed: int) -> None:
    """Give a source without val one, by a seeded draw, and say so in its notes."""
    whole = "all" if "all" in source.splits else "train"
    if "val" in source.splits or whole not in source.splits:
        return
    samples = sorted(source.splits.pop(whole), key=lambda sample: sample.name)
    if len(samples) < 2:
        raise InputError(
            f"{source.root}: has {len(samples)} image: at least 2 are needed, one to train on and "
            "one to check with"
        )
    random.Random(seed).shuffle(samples)
    count = min(len(samples) - 1, max(1, round(len(samples) * val_fraction)))
    rest = dict(source.splits)
    source.splits.clear()
    source.splits["train"] = sorted(samples[count:], key=lambda sample: sample.name)
    source.splits["val"] = sorted(samples[:count], key=lambda sample: sample.name)
    source.splits.update(rest)
    source.notes.append(
        f"no val split in the folder: {count} of {len(samples)} images drawn for it (seed {seed})"
    )


@dataclass
class _Finding:
    """What opening one pair told."""

    problems: list[str]
    size: tuple[int, int] = (0, 0)
    counts: NDArray[np.int64] | None = None  # (256,) of stored values; None for an RGB mask
    pair: tuple[Image, NDArray[np.uint8]] | None = None


def _look(sample: Sample) -> _Finding:
    problems: list[str] = []
    image = mask = None
    try:
        image = read_image(sample.image)
    except InputError as error:
        problems += error.problems
    try:
        if image is not None:
            mask = sample.mask.read(image.shape[:2])
        elif isinstance(sample.mask, MaskFile):  # its faults can be told without the image
            sample.mask.read((0, 0))
    except InputError as error:
        problems += error.problems
    if image is None or mask is None:
        return _Finding(problems)
    if image.shape[:2] != mask.shape[:2]:
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape[:2]
        why = "make them the same size"
        if (mask_height, mask_width) == (width, height) and turned_by_exif(sample.image):
            why = "the photo is turned by its EXIF orientation, turn the mask the same way"
        problems.append(
            f"{sample.mask.path}: is {mask_width}x{mask_height} but its image "
            f"{sample.image.name} is {width}x{height}: {why}"
        )
        return _Finding(problems)
    counts = np.bincount(mask.reshape(-1), minlength=256) if mask.ndim == 2 else None
    return _Finding(problems, image.shape[:2], counts, (image, mask))


def _checked(source: Source, *, cache_bytes: int, progress: Progress | None) -> SegmentationData:
    samples = [sample for split in source.splits.values() for sample in split]
    findings: dict[str, _Finding] = {}
    room = cache_bytes
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (sample, finding) in enumerate(
            zip(samples, pool.map(_look, samples), strict=True), start=1
        ):
            if finding.pair is not None:
                room -= sum(part.nbytes for part in finding.pair)
                if room < 0:
                    finding.pair = None
            findings[sample.name] = finding
            if progress is not None:
                progress(done, len(samples))
    classes = source.classes
    usable = [sample for sample in samples if not findings[sample.name].problems]
    if classes is None or not source.rgb_allowed:
        for sample in usable:
            if findings[sample.name].counts is None:
                findings[sample.name].problems.append(
                    f"{sample.mask.path}: is an RGB mask, and no colour table says which colour is "
                    f"which class: write {source.root / 'classes.toml'} with a name and colour for "
                    "each class, or save index masks"
                )
    if classes is None:
        _raise_problems(samples, findings)
        counts = [finding.counts for finding in findings.values() if finding.counts is not None]
        values = [int(value) for value in np.flatnonzero(np.sum(counts, axis=0))]
        classes = guess_classes(source, values, samples[0].mask.path)
    return _settled(source, classes, findings)


def _raise_problems(samples: list[Sample], findings: dict[str, _Finding]) -> None:
    problems = [line for sample in samples for line in findings[sample.name].problems]
    if problems:
        raise InputError(*problems)


def _settled(source: Source, classes: Classes, findings: dict[str, _Finding]) -> SegmentationData:
    """Hold every mask against the classes; keep what was decoded as class indices."""
    cache: dict[str, tuple[Image, Mask]] = {}
    pixel_counts: dict[str, NDArray[np.int64]] = {}
    for split, samples in source.splits.items():
        total = np.zeros(256, dtype=np.int64)
        for sample in samples:
            finding = findings[sample.name]
            if finding.problems:
                continue
            try:
                if finding.pair is not None:
                    image, stored = finding.pair
                    mask = _to_index(stored, classes)
                    cache[sample.name] = (image, mask)
                elif finding.counts is None:
                    mask = _index_mask(sample.mask, finding.size, classes)
                else:  # the values that occur are enough, the file need not be opened again
                    values = np.flatnonzero(finding.counts).astype(np.uint8)
                    mask = np.repeat(classes.to_index(values), finding.counts[values])
            except InputError as error:
                finding.problems.append(
                    f"{sample.mask.path}: {error}: correct the mask or the class table"
                )
                continue
            total += np.bincount(mask.reshape(-1), minlength=256)
        pixel_counts[split] = total[: len(classes)]
    _raise_problems([sample for split in source.splits.values() for sample in split], findings)
    sizes = {name: finding.size for name, finding in findings.items()}
    return SegmentationData(
        source.root,
        source.layout,
        source.splits,
        classes,
        source.notes,
        sizes,
        pixel_counts,
        cache,
    )


def guess_classes(source: Source, values: list[int], example: Path) -> Classes:
    """Classes from the mask values seen, with a note that says what was assumed.

    0 and 255 alone are background and foreground; 255 beside other values is ignored, as in VOC;
    every other value is a class. Colours come from a palette where the masks have one.
    """
    remedy = f"write {source.root / 'classes.toml'} with the classes' names to state otherwise"
    if len(values) > MAX_GUESSED_CLASSES:
        raise InputError(
            f"{source.root}: {len(values)} different values in the masks, too many for classes "
            f"(blurred or scaled masks?): {remedy}"
        )
    ignore = None
    if values == [0, 255]:
        names = ["background", "foreground"]
        assumed = "binary masks: 0 is background, 255 is foreground"
    else:
        if 255 in values and len(values) > 1:
            ignore = 255
            values = values[:-1]
        names = [f"class_{value}" for value in values]
        assumed = f"{len(values)} classes from the mask values {', '.join(map(str, values))}"
        if ignore is not None:
            assumed += "; 255 is ignored"
    colours = distinct_colours(len(values))
    palette = mask_palette(example)
    if palette is not None and len(palette) > max(values):
        own = [(int(r), int(g), int(b)) for r, g, b in palette[values]]
        if len(set(own)) == len(own):
            colours = tuple(own)
    source.notes.append(f"assumed {assumed}; {remedy}")
    return Classes.make(names, colours=colours, values=values, ignore=ignore)


def _to_index(stored: NDArray[np.uint8], classes: Classes) -> Mask:
    return classes.rgb_to_index(stored) if stored.ndim == 3 else classes.to_index(stored)


def _index_mask(mask: MaskSource, size: tuple[int, int], classes: Classes) -> Mask:
    return _to_index(mask.read(size), classes)
