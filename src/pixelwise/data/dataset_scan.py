"""Decode every pair of a dataset once: the scan that training and the doctor share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.channel_statistics import PixelSummary, choose_format
from pixelwise.data.class_inference import infer_classes
from pixelwise.data.classes import UNKNOWN, Classes
from pixelwise.data.pair_report import MaskReport, PairReport
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.data.source import NO_DATA, Sample, Source
from pixelwise.errors import InputError, shown
from pixelwise.process_settings import cores

ProgressCallback = Callable[[int, int], None]
"""Called with (done, total)."""

P = TypeVar("P", bound=PairReport)


@dataclass
class DatasetScan(Generic[P]):
    """A dataset after every pair was decoded once.

    Attributes:
        source: The layout, its splits and notes. Samples are in `pairs`.
        pairs: One report per pair, ordered by split.
        has_class_table: Whether the dataset itself defines its classes.
        pixels: The format of the images; others have a problem in their report.
        classes: Stated or inferred classes; None if there are none.
        class_problems: Why classes could not be inferred.
        layout_problems: Problems of the layout that did not end the scan.
    """

    source: Source
    pairs: list[P]
    has_class_table: bool
    pixels: PixelFormat = RGB
    classes: Classes | None = None
    class_problems: list[str] = field(default_factory=list)
    layout_problems: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.source.root

    @property
    def splits(self) -> dict[str, list[P]]:
        return {s: [pair for pair in self.pairs if pair.split == s] for s in self.source.splits}

    def summaries(self, split: str | None = None) -> list[PixelSummary]:
        """Return the pixel summaries of the decoded images, of one split or of all."""
        found = (pair.image.summary for pair in self.pairs if split in {None, pair.split})
        return [summary for summary in found if summary is not None]

    def class_indices(self, mask: MaskReport) -> NDArray[np.int16]:
        """(K,) class index, IGNORE or UNKNOWN of each of the mask's values."""
        if self.classes is None or (mask.is_rgb and not self.source.rgb_allowed):
            return np.full(len(mask.values), UNKNOWN, dtype=np.int16)
        if mask.is_rgb:
            return self.classes.find_colors(mask.values)
        return self.classes.find_values(mask.values)

    def is_known(self, mask: MaskReport) -> bool:
        """Whether every value of the mask is a class or ignored."""
        return bool((self.class_indices(mask) != UNKNOWN).all())

    def class_counts(self, mask: MaskReport) -> NDArray[np.int64]:
        """(256,) number of pixels of each class, and of IGNORE; unknown values are left out."""
        indices = self.class_indices(mask)
        known = indices != UNKNOWN
        counts = np.bincount(indices[known], weights=mask.counts[known], minlength=256)
        return counts.astype(np.int64)

    def usable(self, split: str | None = None) -> Iterator[P]:
        """Yield the pairs that training can use, of one split or of all."""
        for pair in self.pairs:
            if split in {None, pair.split} and pair.usable and self.is_known(pair.mask):
                yield pair


def scan_dataset(
    source: Source,
    inspect: Callable[[Sample, str], P],
    *,
    classes: Classes | None = None,
    pixels: PixelFormat | None = None,
    channels: int | None = None,
    value_range: tuple[float, float] | None = None,
    cache_bytes: int = 0,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> DatasetScan[P]:
    """Decode every pair in threads, then determine the pixel format and the classes.

    Args:
        source: The dataset. Notes about what was assumed are added to it.
        inspect: Decodes one pair (sample, split); called in threads.
        classes: Classes to read the masks by if the dataset defines none (a bundle's).
        pixels: The required format; None for what most images have.
        channels: Stated number of channels, if `pixels` is None.
        value_range: Stated range of values, if `pixels` is None.
        cache_bytes: Decoded pairs are kept up to this much memory.
        workers: Number of threads; None for one per core.
        progress: Called with (done, total) after each pair.

    Raises:
        InputError: If the dataset's classes differ from `classes`. Problems of pairs are in their
            reports.
    """
    has_class_table = source.classes is not None
    if classes is not None:
        _use_bundle_classes(classes, source)
    with ThreadPoolExecutor(workers or cores()) as pool:
        pairs = _inspect_pairs(source, inspect, pool, cache_bytes=cache_bytes, progress=progress)
    scan = DatasetScan(source, pairs, has_class_table)
    if pixels is None:
        scan.pixels, notes = choose_format(
            scan.summaries(),
            channels=channels,
            value_range=value_range,
            range_from=scan.summaries("train"),
        )
        source.notes += notes
    else:
        scan.pixels = pixels
    for pair in pairs:
        if pair.image.summary is not None:
            try:
                scan.pixels.select(pair.image.summary.example, pair.image.path)
            except InputError as error:
                pair.image.problems += error.problems
    try:
        scan.classes = infer_classes(source, pairs, has_class_table=has_class_table)
        if source.has_no_data and scan.classes is not None:
            scan.classes = scan.classes.ignoring(NO_DATA)
    except InputError as error:
        scan.class_problems += error.problems
    source.notes[:] = map(shown, source.notes)
    return scan


def _inspect_pairs(
    source: Source,
    inspect: Callable[[Sample, str], P],
    pool: ThreadPoolExecutor,
    *,
    cache_bytes: int,
    progress: ProgressCallback | None,
) -> list[P]:
    jobs = [(sample, split) for split, samples in source.splits.items() for sample in samples]
    pairs: list[P] = []
    for pair in pool.map(lambda job: inspect(*job), jobs):
        if pair.decoded is not None:
            raw, mask = pair.decoded
            cache_bytes -= raw.cached_bytes + mask.nbytes
            if cache_bytes < 0:
                pair.decoded = None
        pairs.append(pair)
        if progress is not None:
            progress(len(pairs), len(jobs))
    return pairs


def _use_bundle_classes(classes: Classes, source: Source) -> None:
    if source.classes is None:
        source.classes, source.rgb_allowed = classes, True
        source.notes.append("mask values are read by the bundle's classes")
    elif source.classes.names != classes.names:
        raise InputError(
            f"{source.root}: the dataset's classes are {', '.join(source.classes.names)}, but the "
            f"bundle's are {', '.join(classes.names)}: use data with the classes that the network "
            "was trained on"
        )
