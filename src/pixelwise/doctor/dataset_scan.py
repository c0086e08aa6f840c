"""A whole folder, looked at: every pair once, the classes settled, what all checks start from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.data import layouts
from pixelwise.data.channel_statistics import choose_format
from pixelwise.data.classes import IGNORE, Classes
from pixelwise.data.dataset import Progress, make_splits
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.data.source import Source
from pixelwise.doctor.class_inference import settle
from pixelwise.doctor.pair_inspection import MaskReport, PairReport, fault_of, inspect_pair
from pixelwise.errors import InputError, collecting, refuse, tolerable

UNKNOWN = -1


@dataclass
class DatasetScan:
    """What the checks are given.

    faults: lines of the layout and of the division that the rest could go on without.
    unclear: lines that say why the masks' values tell no classes.
    pixels: what most images hold; others have a fault.
    stated: whether the folder itself says what its masks hold. classes: None where nothing tells.
    stored_splits: whether the folder has splits of its own; else train and val were drawn.
    """

    root: Path
    source: Source
    faults: list[str]
    pair_reports: list[PairReport]
    stated: bool
    classes: Classes | None = None
    pixels: PixelFormat = RGB
    stored_splits: bool = True
    unclear: list[str] = field(default_factory=list)
    _indices: dict[int, NDArray[np.int16]] = field(default_factory=dict, repr=False)

    @property
    def splits(self) -> dict[str, list[PairReport]]:
        found: dict[str, list[PairReport]] = {split: [] for split in self.source.splits}
        for pair_report in self.pair_reports:
            found[pair_report.split].append(pair_report)
        return found

    def usable(self, split: str | None = None) -> Iterator[PairReport]:
        """The pairs that can be read and have one size, and whose masks the classes explain."""
        for pair_report in self.pair_reports:
            if (
                split in {None, pair_report.split}
                and pair_report.usable
                and self.known(pair_report.mask)
            ):
                yield pair_report

    def indices(self, mask: MaskReport) -> NDArray[np.int16]:
        """(K,) for each of the mask's keys: the class, IGNORE, or UNKNOWN."""
        found = self._indices.get(id(mask))
        if found is None:
            found = self._indices[id(mask)] = self._translate(mask)
        return found

    def _translate(self, mask: MaskReport) -> NDArray[np.int16]:
        found = np.full(len(mask.keys), UNKNOWN, dtype=np.int16)
        colored = mask.keys.ndim == 2
        if self.classes is None or (colored and not self.source.rgb_allowed):
            return found
        for place, key in enumerate(mask.keys):
            try:
                if colored:
                    found[place] = self.classes.rgb_to_index(key[None, None])[0, 0]
                else:
                    found[place] = self.classes.to_index(key[None, None])[0, 0]
            except InputError:
                continue
        return found

    def known(self, mask: MaskReport) -> bool:
        return not mask.too_many and bool((self.indices(mask) != UNKNOWN).all())

    def counts(self, mask: MaskReport) -> NDArray[np.int64]:
        """(C + 1,) pixels of each class of one mask, and of what is ignored."""
        assert self.classes is not None
        size = len(self.classes)
        indices = self.indices(mask).astype(np.int64)
        indices[indices == IGNORE] = size
        kept = indices != UNKNOWN
        total = np.bincount(indices[kept], weights=mask.counts[kept], minlength=size + 1)
        return total.astype(np.int64)


def scan(
    root: Path,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DatasetScan:
    """Find the layout and look at every pair, on all cores.

    Raises InputError where there is no such folder or no layout fits.
    """
    root = Path(root)
    with collecting() as faults:
        source = _find(root)
        stored = "val" in source.splits
        with tolerable():
            make_splits(source, val_fraction=val_fraction, seed=seed)
    stated = source.classes is not None
    pairs = [(sample, split) for split, samples in source.splits.items() for sample in samples]
    pair_reports = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        looks = pool.map(inspect_pair, *zip(*pairs, strict=True)) if pairs else iter(())
        for done, pair_report in enumerate(looks, start=1):
            pair_reports.append(pair_report)
            if progress is not None:
                progress(done, len(pairs))
    found = DatasetScan(root, source, faults, pair_reports, stated, stored_splits=stored)
    found.pixels = _settle_pixels(source, pair_reports)
    with collecting() as more, tolerable():
        found.classes = settle(source, pair_reports)
    found.unclear += more
    return found


def _settle_pixels(source: Source, pair_reports: list[PairReport]) -> PixelFormat:
    """What most images hold, as training finds it; the others are given their fault."""
    facts = [(s, s.image.facts) for s in pair_reports if s.image.facts is not None]
    pixels, notes = choose_format(
        [found for _, found in facts],
        range_from=[found for pair_report, found in facts if pair_report.split == "train"],
    )
    source.notes += notes
    for pair_report, found in facts:
        try:
            pixels.select(found.raw, pair_report.image.path)
        except InputError as error:
            pair_report.image.fault = fault_of(error, pair_report.image.path)
            same = found.raw.dtype == pixels.dtype
            pair_report.image.odd = "channels" if same else "depth"
    return pixels


def _find(root: Path) -> Source:
    """The folder's layout. One that could read nothing at all is an empty one, with its faults."""
    try:
        return layouts.read(root)
    except InputError as error:
        if any(line.startswith(f"{root}: ") for line in error.problems):
            raise
        refuse(error.problems)
    return Source(root, "unreadable", {})
