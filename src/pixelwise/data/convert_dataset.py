"""Any layout that is read, written as the plain one: images/, masks/ and classes.toml."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pixelwise.data.classes import write_classes_toml
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.image_files import write_mask
from pixelwise.data.source import Sample
from pixelwise.errors import InputError
from pixelwise.file_io import atomic, atomic_folder, make_folder

PARTS = ("images", "masks", "classes.toml")

Progress = Callable[[int, int], None]


def convert_data(
    source: Path,
    target: Path,
    *,
    overwrite: bool = False,
    checking: Progress | None = None,
    writing: Progress | None = None,
) -> SegmentationData:
    """Write the data set `source` into `target` in the plain layout; what was found in `source`.

    Images are copied as they are, to images/SPLIT/. Masks become palette PNG files in masks/SPLIT/
    that hold 0..C-1 in the order of the classes, and 255 for what is ignored; classes.toml says
    so. A folder without splits stays without.

    overwrite: replace an earlier conversion in `target`; other files in it are a reason to refuse.
    checking, writing: called with (done, total) of the two passes.

    The new folder comes to its name only when it is whole. Raises InputError for faults of the
    data, as `open_dataset`; for a target that holds something; and for one folder in the other.
    """
    _refuse(source, target, overwrite=overwrite)
    data = open_dataset(source, divide=False, cache_bytes=0, progress=checking)
    make_folder(target.parent)
    with atomic_folder(target, flush=False) as side:  # each file is flushed as it is written
        _write(data, side, writing)
    return data


def _refuse(source: Path, target: Path, *, overwrite: bool) -> None:
    if not target.name:
        raise InputError(f"{target}: give the name of a new folder to write to")
    inner, outer = target.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise InputError(f"{target}: is in {source}, or holds it: give a folder beside it")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: is a file: give the name of a new folder")
    present = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    others = [name for name in present if name not in PARTS]
    if others:
        raise InputError(f"{target}: holds {others[0]}: give a new or an empty folder")
    if present and not overwrite:
        raise InputError(
            f"{target}: holds {present[0]} already: give a new folder, or add --overwrite"
        )


def _write(data: SegmentationData, folder: Path, progress: Progress | None) -> None:
    classes = data.classes.indexed()
    palette = classes.palette()

    def write(job: tuple[str, str, Sample]) -> None:
        split, name, sample = job
        with atomic(folder / "images" / split / f"{name}{sample.image.suffix}") as side:
            shutil.copyfile(sample.image, side)
        _, mask = data.read(sample)
        write_mask(folder / "masks" / split / f"{name}.png", mask, palette=palette)

    jobs = []
    for split, samples in data.splits.items():
        place = "" if split == "all" else split
        for part in ("images", "masks"):
            make_folder(folder / part / place)
        jobs += [(place, name, s) for name, s in zip(_names(samples), samples, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(write, jobs), start=1):
            if progress is not None:
                progress(done, len(jobs))
    write_classes_toml(folder / "classes.toml", classes)


def _names(samples: list[Sample]) -> list[str]:
    """A file name for each: the image's own, with its folders before it where two have one."""
    count = Counter(sample.image.stem.casefold() for sample in samples)
    return [
        sample.image.stem
        if count[sample.image.stem.casefold()] == 1
        else sample.name.strip("/").replace("/", "__")
        for sample in samples
    ]
