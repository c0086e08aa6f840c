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
from pixelwise.data.channels import choose_format
from pixelwise.data.classes import IGNORE, Classes
from pixelwise.data.dataset import Progress, make_splits
from pixelwise.data.pixels import RGB, PixelFormat
from pixelwise.data.source import Source
from pixelwise.doctor.settling import settle
from pixelwise.doctor.sighting import MaskLook, Sighting, fault_of, look_at
from pixelwise.errors import InputError, collecting, refuse, tolerable

UNKNOWN = -1


@dataclass
class Survey:
    """What the checks are given.

    faults: lines of the layout and of the division that the rest could go on without.
    unclear: lines that say why the masks' values tell no classes.
    pixels: what most pictures hold; others have a fault.
    stated: whether the folder itself says what its masks hold. classes: None where nothing tells.
    stored_splits: whether the folder has splits of its own; else train and val were drawn.
    """

    root: Path
    source: Source
    faults: list[str]
    sightings: list[Sighting]
    stated: bool
    classes: Classes | None = None
    pixels: PixelFormat = RGB
    stored_splits: bool = True
    unclear: list[str] = field(default_factory=list)
    _indices: dict[int, NDArray[np.int16]] = field(default_factory=dict, repr=False)

    @property
    def splits(self) -> dict[str, list[Sighting]]:
        found: dict[str, list[Sighting]] = {split: [] for split in self.source.splits}
        for sighting in self.sightings:
            found[sighting.split].append(sighting)
        return found

    def usable(self, split: str | None = None) -> Iterator[Sighting]:
        """The pairs that can be read and have one size, and whose masks the classes explain."""
        for sighting in self.sightings:
            if split in {None, sighting.split} and sighting.usable and self.known(sighting.mask):
                yield sighting

    def indices(self, mask: MaskLook) -> NDArray[np.int16]:
        """(K,) for each of the mask's keys: the class, IGNORE, or UNKNOWN."""
        found = self._indices.get(id(mask))
        if found is None:
            found = self._indices[id(mask)] = self._translate(mask)
        return found

    def _translate(self, mask: MaskLook) -> NDArray[np.int16]:
        found = np.full(len(mask.keys), UNKNOWN, dtype=np.int16)
        coloured = mask.keys.ndim == 2
        if self.classes is None or (coloured and not self.source.rgb_allowed):
            return found
        for place, key in enumerate(mask.keys):
            try:
                if coloured:
                    found[place] = self.classes.rgb_to_index(key[None, None])[0, 0]
                else:
                    found[place] = self.classes.to_index(key[None, None])[0, 0]
            except InputError:
                continue
        return found

    def known(self, mask: MaskLook) -> bool:
        return not mask.too_many and bool((self.indices(mask) != UNKNOWN).all())

    def counts(self, mask: MaskLook) -> NDArray[np.int64]:
        """(C + 1,) pixels of each class of one mask, and of what is ignored."""
        assert self.classes is not None
        size = len(self.classes)
        indices = self.indices(mask).astype(np.int64)
        indices[indices == IGNORE] = size
        kept = indices != UNKNOWN
        total = np.bincount(indices[kept], weights=mask.counts[kept], minlength=size + 1)
        return total.astype(np.int64)


def survey(
    root: Path,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Survey:
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
    sightings = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        looks = pool.map(look_at, *zip(*pairs, strict=True)) if pairs else iter(())
        for done, sighting in enumerate(looks, start=1):
            sightings.append(sighting)
            if progress is not None:
                progress(done, len(pairs))
    found = Survey(root, source, faults, sightings, stated, stored_splits=stored)
    found.pixels = _settle_pixels(source, sightings)
    with collecting() as more, tolerable():
        found.classes = settle(source, sightings)
    found.unclear += more
    return found


def _settle_pixels(source: Source, sightings: list[Sighting]) -> PixelFormat:
    """What most pictures hold, as training finds it; the others are given their fault."""
    facts = [(s, s.image.facts) for s in sightings if s.image.facts is not None]
    pixels, notes = choose_format(
        [found for _, found in facts],
        range_from=[found for sighting, found in facts if sighting.split == "train"],
    )
    source.notes += notes
    for sighting, found in facts:
        try:
            pixels.select(found.raw, sighting.image.path)
        except InputError as error:
            sighting.image.fault = fault_of(error, sighting.image.path)
            same = found.raw.dtype == pixels.dtype
            sighting.image.odd = "channels" if same else "depth"
    return pixels


def _find(root: Path) -> Source:
    """The folder's layout. One that could read nothing at all is an empty one, with its faults."""
    try:
        return layouts.find(root)
    except InputError as error:
        if any(line.startswith(f"{root}: ") for line in error.problems):
            raise
        refuse(error.problems)
    return Source(root, "unreadable", {})
