"""Open a dataset: every pair is decoded and checked before anything is computed from it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data import layouts
from pixelwise.data.channel_statistics import ChannelStatistics, compute_statistics
from pixelwise.data.classes import IGNORE, UNKNOWN, Classes, listed
from pixelwise.data.dataset_scan import DatasetScan, ProgressCallback, scan_dataset
from pixelwise.data.dataset_spec import DatasetSpec
from pixelwise.data.folds import assign_folds
from pixelwise.data.groups import find_groups
from pixelwise.data.image_files import IMAGE_SUFFIXES, MASK_SUFFIXES
from pixelwise.data.pair_report import ImageReport, MaskReport, PairReport, decode_pair
from pixelwise.data.pixel_format import RGB, PixelFormat, Pixels
from pixelwise.data.rasters.blocks import keep_apart
from pixelwise.data.source import Sample, Source
from pixelwise.data.splits import draw_validation_split
from pixelwise.errors import InputError
from pixelwise.recipes.fold import parse_fold
from pixelwise.storage.mirror import DEFAULT_MIB, local_folder

Mask = NDArray[np.uint8]

DEFAULT_CACHE_BYTES = 2 << 30
RASTER_CACHE_BYTES = 64 << 20
"""Windows of rasters are kept up to this size, since users expect them to be read when needed."""


@dataclass(repr=False)
class SegmentationData:
    """A checked dataset: pairs of images and masks by split, and their classes.

    Attributes:
        root: The folder.
        layout: Name of the layout, such as `folders` or `coco`.
        splits: The samples of each split.
        classes: The classes of the masks.
        notes: What was found and assumed, for the user.
        sizes: (height, width) of each sample by name, as the network sees it.
        pixel_counts: (C,) number of pixels of each class by split; ignored pixels are left out.
        pixels: Channels, type and value range of the images.
        statistics: Mean and std of each channel over `train`, or over all images if there is no
            `train`. None for RGB, which uses the statistics of the pretrained weights.
        checksums: `checksum` of each sample by name.
        stated: What options and data.toml state about the dataset, as plain values.
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
    checksums: dict[str, int] = field(default_factory=dict)
    stated: dict[str, Any] = field(default_factory=dict)
    _cache: dict[str, tuple[NDArray[Any], Mask]] = field(default_factory=dict)

    def __repr__(self) -> str:
        splits = ", ".join(f"{split} {len(samples)}" for split, samples in self.splits.items())
        return (
            f"SegmentationData({str(self.root)!r}, layout {self.layout!r}, {splits}, "
            f"{len(self.classes)} classes: {listed(self.classes.names)})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled for worker processes: not the cached images."""
        return {**self.__dict__, "_cache": {}}

    def read(self, sample: Sample) -> tuple[Pixels, Mask]:
        """Read one image and its mask, from the cache if they are in it.

        Returns:
            The image (H, W, C) in units of 0..255, uint8 or float32 as `pixels` gives, and the
            mask (H, W) as class indices and IGNORE.

        Raises:
            InputError: If a file can no longer be read.
        """
        cached = self._cache.get(sample.name)
        if cached is not None:
            image, mask = cached
            return self.pixels.scale(image), mask
        raw = sample.read_raw()
        image = self.pixels.scale(self.pixels.select(raw, sample.image))
        return image, _to_index(sample.mask.read(image.shape[:2]), self.classes)


def open_dataset(
    root: str | Path,
    *,
    splits: tuple[str, ...] | None = None,
    classes: Classes | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    mirror_bytes: int = DEFAULT_MIB << 20,
    progress: ProgressCallback | None = None,
    draw_val: bool = True,
    pixels: PixelFormat | None = None,
    channels: int | None = None,
    value_range: tuple[float, float] | None = None,
    spec: DatasetSpec | None = None,
    group_by: str = "",
    fold: str = "",
) -> SegmentationData:
    """Open a folder of images and masks in any supported layout, and check every file.

    For the other arguments see `pixelwise.open_dataset`.

    Args:
        root: The folder, or its address in an object store such as s3://bucket/folder.
        classes: Classes to read the masks by (a bundle's). The dataset's own classes, if it
            defines some, must have the same names.
        cache_bytes: Decoded images are kept in memory up to this size.
        mirror_bytes: Files of an address are kept on disk up to this size.
        progress: Called with (done, total) after each pair.
        draw_val: Whether to draw a `val` split if there is none. False keeps the splits of the
            folder, named `all` if it has none.
        pixels: The format that the images must have (a bundle's); None for what most images have.
        channels: Number of channels to use, if `pixels` is None.
        value_range: Stored values that become 0 and 255, if `pixels` is None.
        spec: What the user states about the images and masks in the folder.
        group_by: The rule that names the groups of images that a draw keeps together; see
            `data.groups`.
        fold: Such as `2/5`: train and val are divided anew into 5 folds, of which val is the
            second. The test split stays apart.

    Returns:
        The checked dataset.

    Raises:
        InputError: If the folder cannot be used, with one line for each problem: missing partners,
            unreadable files, sizes, channels, mask values.
    """
    folder, workers = local_folder(
        root, IMAGE_SUFFIXES | MASK_SUFFIXES, limit=mirror_bytes, progress=progress
    )
    source = layouts.read(folder, spec)
    wanted, in_folds = splits, fold != "" and draw_val and splits != ("test",)
    if in_folds:
        _pool(source)
        splits = tuple(
            s for s in ("train", "test") if splits is None or s == "train" or s in splits
        )
        splits = tuple(split for split in splits if split in source.splits)
    elif draw_val:
        draw_validation_split(source, val_fraction=val_fraction, seed=seed, group_by=group_by)
    if splits is not None:
        _keep_splits(source, splits)
    if source.has_no_data:
        cache_bytes = min(cache_bytes, RASTER_CACHE_BYTES)
    scan = scan_dataset(
        source,
        _inspect,
        classes=classes,
        pixels=pixels,
        channels=channels,
        value_range=value_range,
        cache_bytes=cache_bytes,
        workers=workers,
        progress=progress,
    )
    if in_folds:
        _divide(scan, group_by, fold, seed, wanted)
    statistics = None
    if pixels is None and scan.pixels.channels != 3:
        statistics = compute_statistics(scan.summaries("train") or scan.summaries(), scan.pixels)
    return _to_data(scan, _checked_classes(scan), statistics)


def checksum(image: NDArray[Any], mask: NDArray[Any]) -> int:
    """Return a checksum of the pixels of an image and its mask, to notice that they changed."""
    value = 0
    for array in (image, mask):
        value = zlib.crc32(f"{array.dtype} {array.shape}".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value


def _pool(source: Source) -> None:
    """Make train, val and undivided images one split, named train."""
    parts = [source.splits.pop(split, []) for split in ("all", "train", "val")]
    samples = sorted((s for part in parts for s in part), key=lambda sample: sample.name)
    if not samples:
        raise InputError(
            f"{source.root}: has no images to divide into folds besides "
            f"{', '.join(source.splits)}: add images for training"
        )
    source.splits = {"train": samples, **source.splits}


def _divide(
    scan: DatasetScan[PairReport],
    group_by: str,
    fold: str,
    seed: int,
    wanted: tuple[str, ...] | None,
) -> None:
    """Move the images of a fold from train to val, and leave out the splits that are not wanted."""
    number, count = parse_fold(fold)
    pooled = [pair for pair in scan.pairs if pair.split == "train"]
    samples = [pair.sample for pair in pooled]
    names = [sample.name for sample in samples]
    groups = find_groups(scan.root, samples, group_by) or names
    counts = np.stack([scan.class_counts(pair.mask) for pair in pooled])[:, :IGNORE]
    folds = assign_folds(groups, counts[:, counts.any(axis=0)], count, seed=seed)
    for pair, own in zip(pooled, folds, strict=True):
        pair.split = "val" if own == number - 1 else "train"
    if scan.source.has_no_data:
        _keep_apart(scan)
    tested = scan.source.splits.get("test")
    keep: dict[str, list[Sample]] = {"train": [], "val": []} | (
        {} if tested is None else {"test": tested}
    )
    scan.source.splits = {s: v for s, v in keep.items() if wanted is None or s in wanted}
    scan.pairs = [pair for pair in scan.pairs if pair.split in scan.source.splits]
    grouped = f", whole groups by {group_by}" if group_by else ""
    scan.source.notes.append(
        f"fold {number} of {count} of {len(pooled)} images is val (seed {seed}{grouped})"
    )


def _keep_apart(scan: DatasetScan[PairReport]) -> None:
    """Leave out the windows of rasters that overlap those of a fold."""
    splits: dict[str, list[Sample]] = {}
    for pair in scan.pairs:
        splits.setdefault(pair.split, []).append(pair.sample)
    divided = replace(scan.source, splits=splits)
    keep_apart(divided)
    kept = {sample.name for samples in divided.splits.values() for sample in samples}
    scan.pairs = [pair for pair in scan.pairs if pair.sample.name in kept]


def _keep_splits(source: Source, splits: tuple[str, ...]) -> None:
    for split in splits:
        if split not in source.splits:
            existing = ", ".join(source.splits)
            raise InputError(f"{source.root}: there is no split {split!r}: it has {existing}")
    source.splits = {split: source.splits[split] for split in splits}


def _inspect(sample: Sample, split: str) -> PairReport:
    pair = PairReport(sample, split, ImageReport(sample.image), MaskReport(sample.mask.path))
    raw, stored = decode_pair(pair)
    if raw is not None and stored is not None and pair.usable:
        pair.decoded = raw, stored
        pair.checksum = checksum(raw.pixels, stored)
    return pair


def _checked_classes(scan: DatasetScan[PairReport]) -> Classes:
    """Return the classes. Raises InputError with all problems of the dataset."""
    table = scan.root / "classes.toml"
    other = "" if table.exists() else f", or write {table} with your own classes"
    undecided = []
    for pair in scan.pairs:
        mask = pair.mask
        if pair.problems:
            continue
        if mask.is_rgb and not scan.source.rgb_allowed:
            mask.problems.append(
                f"{mask.path}: the mask is RGB, but no table gives the class of each color: "
                f"write {table} with a name and a color for each class, or save index masks"
            )
        elif scan.classes is not None and not scan.is_known(mask):
            if _only_255_is_unknown(mask, scan.classes):
                undecided.append(mask)
                continue
            try:
                (scan.classes.colors_to_index if mask.is_rgb else scan.classes.to_index)(
                    mask.values
                )
            except InputError as error:
                mask.problems.append(
                    f"{mask.path}: {error}: correct the mask or the class table{other}"
                )
    if undecided and scan.classes is not None:
        first, count = undecided[0], len(undecided)
        holders = "this mask holds" if count == 1 else f"{count} masks hold"
        first.problems.append(
            f"{first.path}: mask value 255 is not among the classes ({scan.classes.allowed()}); "
            f"{holders} it: write `ignore = 255`{' and the classes' if other else ''} into {table} "
            "if it marks pixels to ignore, or correct the masks"
        )
    problems = [line for pair in scan.pairs for line in pair.problems] or scan.class_problems
    if problems or scan.classes is None:
        raise InputError(*problems)
    return scan.classes


def _only_255_is_unknown(mask: MaskReport, classes: Classes) -> bool:
    if mask.is_rgb or classes.ignore is not None:
        return False
    return bool(mask.values[classes.find_values(mask.values) == UNKNOWN].tolist() == [255])


def _to_data(
    scan: DatasetScan[PairReport], classes: Classes, statistics: ChannelStatistics | None
) -> SegmentationData:
    cache: dict[str, tuple[NDArray[Any], Mask]] = {}
    counts = {split: np.zeros(256, dtype=np.int64) for split in scan.splits}
    for pair in scan.pairs:
        counts[pair.split] += scan.class_counts(pair.mask)
        if pair.decoded is not None:
            raw, stored = pair.decoded
            image = scan.pixels.select(raw, pair.image.path)
            cache[pair.sample.name] = image, _to_index(stored, classes)
            pair.decoded = None  # frees memory for the next mask
    return SegmentationData(
        scan.root,
        scan.source.layout,
        {split: [pair.sample for pair in pairs] for split, pairs in scan.splits.items()},
        classes,
        scan.source.notes,
        {pair.sample.name: pair.image.size for pair in scan.pairs},
        {split: total[: len(classes)] for split, total in counts.items()},
        scan.pixels,
        statistics,
        {pair.sample.name: pair.checksum for pair in scan.pairs},
        scan.source.stated,
        cache,
    )


def _to_index(stored: NDArray[Any], classes: Classes) -> Mask:
    return classes.rgb_to_index(stored) if stored.ndim == 3 else classes.to_index(stored)
