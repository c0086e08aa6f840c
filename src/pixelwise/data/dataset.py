"""A checked data set: every pair opened once before anything is computed from it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data import layouts
from pixelwise.data.channel_statistics import (
    ChannelStatistics,
    RawFacts,
    choose_format,
    facts_of,
    measure,
)
from pixelwise.data.class_inference import (
    infer_classes_from_colors,
    infer_classes_from_values,
    is_gray,
)
from pixelwise.data.classes import Classes, pack_rgb
from pixelwise.data.image_files import read_image, read_raw, turned_by_exif
from pixelwise.data.pixel_format import RGB, PixelFormat, Pixels, RawImage
from pixelwise.data.source import GrayRgbFile, MaskFile, MaskSource, Sample, Source
from pixelwise.errors import InputError

Mask = NDArray[np.uint8]
Progress = Callable[[int, int], None]
"""Called with (done, total) while the files are checked."""

DEFAULT_CACHE_BYTES = 2 << 30


@dataclass
class SegmentationData:
    """Pairs by split, the classes, and what was assumed on the way.

    sizes: (height, width) of each sample by name, as the network will see it.
    pixel_counts: (C,) pixels of each class by split, IGNORE left out.
    pixels: what the images hold. statistics: of each channel over train, or over all where there
        is no train; None for RGB, of which networks have their own.
    """

    root: Path
    layout: str
    splits: dict[str, list[Sample]]
    classes: Classes
    notes: list[str]
    sizes: dict[str, tuple[int, int]]
    pixel_counts: dict[str, NDArray[np.int64]]
    pixels: PixelFormat = RGB
    statistics: ChannelStatistics | None = None
    _cache: dict[str, tuple[NDArray[Any], Mask]] = field(default_factory=dict, repr=False)

    def read(self, sample: Sample) -> tuple[Pixels, Mask]:
        """The image (H, W, C) in units of 0..255, uint8 or float32 as `pixels` says, and its mask
        (H, W) as class indices and IGNORE."""
        cached = self._cache.get(sample.name)
        if cached is not None:
            image, mask = cached
            return self.pixels.scale(image), mask
        image = read_image(sample.image, self.pixels)
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
    divide: bool = True,
    pixels: PixelFormat | None = None,
    channels: int | None = None,
    value_range: tuple[float, float] | None = None,
) -> SegmentationData:
    """Find the layout of `root`, open every file of `splits` once, and settle the classes.

    splits: the ones to check and keep (None: all). A folder without splits is divided into train
        and val by `seed`, `val_fraction` of it to val; a folder with train but no val likewise.
    classes: the table to hold the masks against, in place of the folder's own (a bundle's).
    cache_bytes: decoded images are kept up to this much memory.
    divide: False leaves the splits as the folder has them, `all` where it has none.
    pixels: what images have to hold (a bundle's); None: what most of them hold, with `channels`
        and `value_range` where these are stated (see `PixelFormat`).

    Raises InputError with a line for each fault: pairs, unreadable files, sizes, channels, mask
    values.
    """
    source = layouts.read(root)
    if divide:
        make_splits(source, val_fraction=val_fraction, seed=seed)
    if splits is not None:
        for split in splits:
            if split not in source.splits:
                have = ", ".join(source.splits)
                raise InputError(f"{root}: has no split {split!r}: it has {have}")
        source.splits = {split: source.splits[split] for split in splits}
    stated = source.classes is not None
    if classes is not None:
        _hold_against(source, classes)
    findings = _look_at_all(source, cache_bytes=cache_bytes, progress=progress)
    if pixels is None:
        chosen = _PixelChoice.of(source, findings, channels=channels, value_range=value_range)
    else:
        chosen = _PixelChoice(pixels)
    _select(source, findings, chosen.pixels)
    return _checked(source, findings, chosen, stated=stated)


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


def make_splits(source: Source, *, val_fraction: float, seed: int) -> None:
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
    counts: NDArray[np.int64] | None = None  # (256,) or more, of stored values; None if RGB
    colors: NDArray[np.uint32] | None = None  # the different ones of an RGB mask, packed
    facts: RawFacts | None = None
    pair: tuple[RawImage, NDArray[Any]] | None = None


def _look(sample: Sample) -> _Finding:
    problems: list[str] = []
    image = mask = None
    try:
        image = read_raw(sample.image)
    except InputError as error:
        problems += error.problems
    try:
        if image is not None:
            mask = sample.mask.read(image.size)
        elif isinstance(sample.mask, MaskFile):  # its faults can be told without the image
            sample.mask.read((0, 0))
    except InputError as error:
        problems += error.problems
    if image is None or mask is None:
        return _Finding(problems)
    if image.size != mask.shape[:2]:
        (height, width), (mask_height, mask_width) = image.size, mask.shape[:2]
        why = "make them the same size"
        if (mask_height, mask_width) == (width, height) and turned_by_exif(sample.image):
            why = "the photo is turned by its EXIF orientation, turn the mask the same way"
        problems.append(
            f"{sample.mask.path}: is {mask_width}x{mask_height} but its image "
            f"{sample.image.name} is {width}x{height}: {why}"
        )
        return _Finding(problems)
    finding = _Finding(problems, image.size, facts=facts_of(image), pair=(image, mask))
    if mask.ndim == 2:
        finding.counts = np.bincount(mask.reshape(-1), minlength=256)
    else:
        finding.colors = np.unique(pack_rgb(mask))
    return finding


def _look_at_all(
    source: Source, *, cache_bytes: int, progress: Progress | None
) -> dict[str, _Finding]:
    samples = [sample for split in source.splits.values() for sample in split]
    findings: dict[str, _Finding] = {}
    room = cache_bytes
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (sample, finding) in enumerate(
            zip(samples, pool.map(_look, samples), strict=True), start=1
        ):
            if finding.pair is not None:
                image, mask = finding.pair
                room -= image.kept_bytes + mask.nbytes
                if room < 0:
                    finding.pair = None
            findings[sample.name] = finding
            if progress is not None:
                progress(done, len(samples))
    return findings


@dataclass(frozen=True)
class _PixelChoice:
    pixels: PixelFormat
    statistics: ChannelStatistics | None = None

    @classmethod
    def of(
        cls,
        source: Source,
        findings: dict[str, _Finding],
        *,
        channels: int | None,
        value_range: tuple[float, float] | None,
    ) -> _PixelChoice:
        """What most images hold; what there is to say about it goes into the notes."""
        facts = {name: f.facts for name, f in findings.items() if f.facts is not None}
        train = [facts[s.name] for s in source.splits.get("train", []) if s.name in facts]
        train = train or list(facts.values())
        pixels, notes = choose_format(
            list(facts.values()), channels=channels, value_range=value_range, range_from=train
        )
        source.notes += notes
        return cls(pixels, None if pixels.channels == 3 else measure(train, pixels))


def _select(source: Source, findings: dict[str, _Finding], pixels: PixelFormat) -> None:
    """Name the images that are not of the format; of those kept take the channels wanted."""
    for samples in source.splits.values():
        for sample in samples:
            finding = findings[sample.name]
            if finding.facts is None:
                continue
            try:
                pixels.select(finding.facts.raw, sample.image)
            except InputError as error:
                finding.problems += error.problems
                continue
            if finding.pair is not None:
                image, mask = finding.pair
                chosen = pixels.select(image, sample.image)
                finding.pair = RawImage(chosen), mask


def _checked(
    source: Source, findings: dict[str, _Finding], chosen: _PixelChoice, *, stated: bool
) -> SegmentationData:
    """stated: whether the folder itself says what its masks hold, so that nothing is guessed."""
    samples = [sample for split in source.splits.values() for sample in split]
    classes = source.classes
    usable = [sample for sample in samples if not findings[sample.name].problems]
    colored = {s.name: c for s in usable if (c := findings[s.name].colors) is not None}
    if colored and len(colored) == len(usable) and (classes is None or source.rgb_allowed):
        colors = np.unique(np.concatenate(list(colored.values())))
        known = classes is not None and classes.knows_colors(colors)
        if not stated and not known and is_gray(colors):
            _read_as_numbers(source, findings)
        elif classes is None:
            _raise_problems(samples, findings)
            classes = infer_classes_from_colors(source, colors)
    elif classes is None or not source.rgb_allowed:
        for sample in usable:
            if sample.name in colored:
                findings[sample.name].problems.append(
                    f"{sample.mask.path}: is an RGB mask, and no color table says which color is "
                    f"which class: write {source.root / 'classes.toml'} with a name and color for "
                    "each class, or save index masks"
                )
    if classes is None:
        _raise_problems(samples, findings)
        values = sorted({v for s in samples for v in _values(findings[s.name])})
        classes = infer_classes_from_values(source, values, samples[0].mask)
    return _settled(source, classes, findings, chosen)


def _values(finding: _Finding) -> list[int]:
    return [] if finding.counts is None else [int(v) for v in np.flatnonzero(finding.counts)]


def _read_as_numbers(source: Source, findings: dict[str, _Finding]) -> None:
    """Take RGB masks whose channels are all equal for the index masks that they were."""
    source.notes.append("the RGB masks are gray everywhere: read by their numbers, as index masks")
    for samples in source.splits.values():
        for place, sample in enumerate(samples):
            finding = findings[sample.name]
            samples[place] = replace(sample, mask=GrayRgbFile(sample.mask.path))
            if finding.problems:
                continue
            if finding.pair is not None:
                finding.pair = (finding.pair[0], finding.pair[1][..., 0])
                stored = finding.pair[1]
            else:
                stored = samples[place].mask.read(finding.size)
            finding.counts, finding.colors = np.bincount(stored.reshape(-1), minlength=256), None


def _raise_problems(samples: list[Sample], findings: dict[str, _Finding]) -> None:
    problems = [line for sample in samples for line in findings[sample.name].problems]
    if problems:
        raise InputError(*problems)


def _settled(
    source: Source, classes: Classes, findings: dict[str, _Finding], chosen: _PixelChoice
) -> SegmentationData:
    """Hold every mask against the classes; keep what was decoded as class indices."""
    cache: dict[str, tuple[NDArray[Any], Mask]] = {}
    pixel_counts: dict[str, NDArray[np.int64]] = {}
    table = source.root / "classes.toml"
    other = "" if table.exists() else f", or write {table} with classes of your own"
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
                    cache[sample.name] = (image.pixels, mask)
                elif finding.counts is None:
                    mask = _index_mask(sample.mask, finding.size, classes)
                else:  # the values that occur are enough, the file need not be opened again
                    values = np.flatnonzero(finding.counts)
                    mask = np.repeat(classes.to_index(values), finding.counts[values])
            except InputError as error:
                finding.problems.append(
                    f"{sample.mask.path}: {error}: correct the mask or the class table{other}"
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
        chosen.pixels,
        chosen.statistics,
        cache,
    )


def _to_index(stored: NDArray[Any], classes: Classes) -> Mask:
    return classes.rgb_to_index(stored) if stored.ndim == 3 else classes.to_index(stored)


def _index_mask(mask: MaskSource, size: tuple[int, int], classes: Classes) -> Mask:
    return _to_index(mask.read(size), classes)
