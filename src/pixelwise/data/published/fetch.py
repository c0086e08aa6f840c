"""Download (or take from disk), verify and unpack a published dataset."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.published.catalog import Archive, PublishedDataset, find_dataset
from pixelwise.data.published.download import DownloadError, Progress, check_free_space, size_of
from pixelwise.data.published.remote_file import manual_instructions
from pixelwise.data.published.unpack import unpack
from pixelwise.errors import InputError
from pixelwise.file_io import atomic_folder, make_folder, write_errors
from pixelwise.folder_lock import FolderLock


def archives_folder(to: Path) -> Path:
    """The folder for the archives of a dataset at `to`: downloads, and files put there by hand."""
    return to.with_name(to.name + ".archives")


def fetch_dataset(name: str, to: Path | None = None, *, progress: Progress | None = None) -> Path:
    """Create a folder with a published dataset.

    Archives that are already in `archives_folder(to)` are used and kept; downloaded archives are
    removed after unpacking. The folder appears when it is complete.

    Args:
        name: Name in the catalog, in any case.
        to: The new folder; None: named after the dataset, in the current folder.
        progress: Called with the current activity, the bytes processed and the total number of
            bytes (None if unknown).

    Returns:
        The folder.

    Raises:
        InputError: If the name is unknown, the folder is not empty, the disk has too little space,
            an archive is not the published one, or the dataset must be downloaded by hand.
        DownloadError: If the network fails; with one line for each missing archive.
    """
    entry = find_dataset(name)
    to = Path(entry.name) if to is None else to
    _check_target(entry, to)
    make_folder(to.parent)
    archives = archives_folder(to)
    missing = [a for a in entry.archives if not (archives / a.file).is_file()]
    remaining = sum(_remaining_bytes(archive, archives) for archive in missing)
    check_free_space(to.parent, remaining + _unpacked_bytes(entry, archives))
    for archive in entry.archives:
        if archive not in missing:
            archive.verify(archives / archive.file, progress)
    if missing:
        _download(entry.name, missing, archives, progress)
    with atomic_folder(to, flush=False) as temporary:
        for archive in entry.archives:
            path = archives / archive.file
            unpack(path, temporary, extract=archive.extract, progress=progress)
        for file, text in entry.files:
            (temporary / file).write_text(text, encoding="utf-8")
        _check_target(entry, to)  # it may have been filled meanwhile
    for archive in missing:
        (archives / archive.file).unlink(missing_ok=True)
    if archives.is_dir() and not any(archives.iterdir()):
        archives.rmdir()
    return to


def _check_target(entry: PublishedDataset, to: Path) -> None:
    if not to.name:
        raise InputError(f"{to}: is not the name of a new folder: give one with --to")
    if not entry.archives:
        raise InputError(f"{entry.name}: {entry.manual_download.format(to=to)}")
    if to.exists() and not to.is_dir():
        raise InputError(f"{to}: is a file: give a folder with --to")
    with write_errors(to):
        if to.is_dir() and any(to.iterdir()):
            raise InputError(f"{to}: is not empty: give a new folder with --to")


def _download(name: str, missing: list[Archive], archives: Path, progress: Progress | None) -> None:
    with FolderLock(archives, "data get") as lock:
        lock.take()
        for index, archive in enumerate(missing):
            try:
                archive.download(archives, progress)
            except DownloadError as error:
                raise manual_instructions(name, missing[index:], archives, str(error)) from error


def _remaining_bytes(archive: Archive, archives: Path) -> int:
    return max(0, (archive.size or 0) - size_of(archives / (archive.file + ".part")))


def _unpacked_bytes(entry: PublishedDataset, archives: Path) -> int:
    """A lower bound of the unpacked size: images compress little, so the size of the archives."""
    return sum(size_of(archives / a.file) or a.size or 0 for a in entry.archives)
