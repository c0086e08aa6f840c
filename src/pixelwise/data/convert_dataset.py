"""Convert a dataset in any supported layout to the plain one: images/, masks/ and classes.toml."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pixelwise.data.classes import write_classes_toml
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.dataset_spec import DatasetSpec
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
    spec: DatasetSpec | None = None,
) -> SegmentationData:
    """Convert a dataset to the plain layout.

    Images are copied unchanged to images/SPLIT/. Masks become palette PNG files in masks/SPLIT/
    with the values 0..C-1 in the order of the classes and 255 for ignored pixels, as in
    classes.toml. A dataset without splits stays without. The new folder appears under its name only
    when it is complete.

    Args:
        source: The dataset, in any supported layout.
        target: The folder to write.
        overwrite: Whether to replace files of the same names in `target`, such as those of an
            earlier conversion.
        checking: Called with (done, total) while the dataset is checked.
        writing: Called with (done, total) while files are written.
        spec: What the user states about the images and masks in the folder.

    Returns:
        The dataset as found in `source`.

    Raises:
        InputError: If the dataset has problems (see `open_dataset`), `target` has other files, or
            one folder is inside the other. With `overwrite`, other files are those that this
            conversion would not write; they would be mixed with it.
    """
    source, target = Path(source), Path(target)
    _check_target(source, target, overwrite=overwrite)
    data = open_dataset(source, draw_val=False, cache_bytes=0, progress=checking, spec=spec)
    if any(sample.part is not None for samples in data.splits.values() for sample in samples):
        raise InputError(
            f"{source}: the images are windows of rasters, and no files that can be copied: train "
            "on the rasters themselves"
        )
    make_folder(target.parent)
    jobs = _jobs(data)
    _check_others(target, jobs)
    with atomic_folder(target, flush=False) as folder:  # each file is flushed when it is written
        _write(data, folder, jobs, writing)
        _check_target(source, target, overwrite=overwrite)  # it may have changed meanwhile
        _check_others(target, jobs)
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


@dataclass(frozen=True)
class _Job:
    """A pair to write: its sample, and the final paths in the target folder."""

    sample: Sample
    image: Path
    mask: Path


def _jobs(data: SegmentationData) -> list[_Job]:
    jobs = []
    for split, samples in data.splits.items():
        subfolder = "" if split == "all" else split
        jobs += [
            _Job(
                sample,
                Path("images", subfolder, f"{name}{sample.image.suffix}"),
                Path("masks", subfolder, f"{name}.png"),
            )
            for name, sample in zip(unique_names(samples), samples, strict=True)
        ]
    return jobs


def _check_others(target: Path, jobs: Sequence[_Job]) -> None:
    """Raise InputError for files in `target` that the conversion would remove, not replace."""
    written = {Path("classes.toml"), *(path for job in jobs for path in (job.image, job.mask))}
    files = (path for path in sorted(target.rglob("*")) if path.is_symlink() or not path.is_dir())
    others = [path for path in files if path.relative_to(target) not in written]
    if others:
        raise InputError(
            f"{target}: holds {len(others)} files that are no part of this conversion, such as "
            f"{others[0].relative_to(target).as_posix()}: move them away, or give a new folder"
        )


def _write(
    data: SegmentationData, folder: Path, jobs: Sequence[_Job], progress: ProgressCallback | None
) -> None:
    classes = data.classes.indexed()
    palette = classes.palette()

    def write(job: _Job) -> None:
        with atomic(folder / job.image) as temporary:
            shutil.copyfile(job.sample.image, temporary)
        _, mask = data.read(job.sample)
        write_mask(folder / job.mask, mask, palette=palette)

    for kind in ("images", "masks"):
        for split in data.splits:
            make_folder(folder / kind / ("" if split == "all" else split))
    with ThreadPoolExecutor(cores()) as pool:
        for done, _ in enumerate(pool.map(write, jobs), start=1):
            if progress is not None:
                progress(done, len(jobs))
    write_classes_toml(folder / "classes.toml", classes)


def unique_names(samples: list[Sample]) -> list[str]:
    """Return unique file names: the image's own, prefixed by its folders if it is not unique."""
    count = Counter(sample.image.stem.casefold() for sample in samples)
    return [
        sample.image.stem
        if count[sample.image.stem.casefold()] == 1
        else sample.name.strip("/").replace("/", "__")
        for sample in samples
    ]
