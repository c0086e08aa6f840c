"""Convert a dataset in any supported layout to the plain one: images/, masks/ and classes.toml."""

from __future__ import annotations

import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pixelwise.data.classes import write_classes_toml
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.image_files import write_mask
from pixelwise.data.source import Sample
from pixelwise.errors import InputError
from pixelwise.file_io import atomic, atomic_folder, make_folder
from pixelwise.process_settings import cores

WRITTEN = ("images", "masks", "classes.toml")


def convert_data(
    source: str | Path,
    target: str | Path,
    *,
    overwrite: bool = False,
    checking: ProgressCallback | None = None,
    writing: ProgressCallback | None = None,
) -> SegmentationData:
    """Convert a dataset to the plain layout.

    Images are copied unchanged to images/SPLIT/. Masks become palette PNG files in masks/SPLIT/
    with the values 0..C-1 in the order of the classes and 255 for ignored pixels, as in
    classes.toml. A dataset without splits stays without. The new folder appears under its name only
    when it is complete.

    Args:
        source: The dataset, in any supported layout.
        target: The folder to write.
        overwrite: Whether to replace an earlier conversion in `target`.
        checking: Called with (done, total) while the dataset is checked.
        writing: Called with (done, total) while files are written.

    Returns:
        The dataset as found in `source`.

    Raises:
        InputError: If the dataset has problems (see `open_dataset`), `target` has other files, or
            one folder is inside the other.
    """
    source, target = Path(source), Path(target)
    _check_target(source, target, overwrite=overwrite)
    data = open_dataset(source, draw_val=False, cache_bytes=0, progress=checking)
    make_folder(target.parent)
    with atomic_folder(target, flush=False) as folder:  # each file is flushed when it is written
        _write(data, folder, writing)
    return data


def _check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    if not target.name:
        raise InputError(f"{target}: not a folder name: give the name of a new folder")
    inner, outer = target.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise InputError(f"{target}: is inside {source}, or contains it: give a folder beside it")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: this is a file: give the name of a new folder")
    present = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    others = [name for name in present if name not in WRITTEN]
    if others:
        raise InputError(f"{target}: the folder has {others[0]}: give a new or an empty folder")
    if present and not overwrite:
        raise InputError(
            f"{target}: the folder already has {present[0]}: give a new folder, or add --overwrite"
        )


def _write(data: SegmentationData, folder: Path, progress: ProgressCallback | None) -> None:
    classes = data.classes.indexed()
    palette = classes.palette()

    def write(job: tuple[str, str, Sample]) -> None:
        split, name, sample = job
        with atomic(folder / "images" / split / f"{name}{sample.image.suffix}") as temporary:
            shutil.copyfile(sample.image, temporary)
        _, mask = data.read(sample)
        write_mask(folder / "masks" / split / f"{name}.png", mask, palette=palette)

    jobs = []
    for split, samples in data.splits.items():
        subfolder = "" if split == "all" else split
        for kind in ("images", "masks"):
            make_folder(folder / kind / subfolder)
        jobs += [(subfolder, name, s) for name, s in zip(_names(samples), samples, strict=True)]
    with ThreadPoolExecutor(cores()) as pool:
        for done, _ in enumerate(pool.map(write, jobs), start=1):
            if progress is not None:
                progress(done, len(jobs))
    write_classes_toml(folder / "classes.toml", classes)


def _names(samples: list[Sample]) -> list[str]:
    """Return unique file names: the image's own, prefixed by its folders if it is not unique."""
    count = Counter(sample.image.stem.casefold() for sample in samples)
    return [
        sample.image.stem
        if count[sample.image.stem.casefold()] == 1
        else sample.name.strip("/").replace("/", "__")
        for sample in samples
    ]
