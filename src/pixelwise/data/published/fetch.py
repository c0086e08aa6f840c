"""A published data set by name: fetched or taken from where it was laid, verified, unpacked."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.published.catalog import Archive, DataSet, find_data_set
from pixelwise.data.published.download import (
    NotFetchedError,
    Progress,
    check_room,
    digest_of,
    download,
)
from pixelwise.data.published.unpack import unpack
from pixelwise.errors import InputError
from pixelwise.file_io import atomic_folder, make_folder, not_writable

__all__ = ["NotFetchedError", "archives_folder", "fetch_dataset"]


def archives_folder(to: Path) -> Path:
    """Where the archives of a data set at `to` are fetched to, or laid by hand."""
    return to.with_name(to.name + ".archives")


def fetch_dataset(name: str, to: Path | None = None, *, progress: Progress | None = None) -> Path:
    """Put the published data set `name` into the new folder `to` (None: of its name); returns it.

    An archive that lies in `archives_folder(to)` already is taken, and stays there; what is fetched
    is removed once it is unpacked. The folder appears when it is whole. progress: called with what
    is done, the bytes done, and those in all, None where that is not known.

    Raises InputError for an unknown name, a folder that holds something, too little room, an
    archive that is not the published one, and a data set that must be fetched by hand;
    NotFetchedError, with a line for each archive that is missing, where the network fails.
    """
    entry = find_data_set(name)
    to = Path(entry.name) if to is None else to
    _refuse(entry, to)
    make_folder(to.parent)
    laid = archives_folder(to)
    missing = [a for a in entry.archives if not (laid / a.file).is_file()]
    check_room(to.parent, sum(_remaining(a, laid) for a in missing) + _unpacked(entry, laid))
    for archive in entry.archives:
        if archive not in missing:
            _verify(archive, laid / archive.file, progress)
    for place, archive in enumerate(missing):
        make_folder(laid)
        try:
            download(archive.urls, laid / archive.file, size=archive.size, progress=progress)
        except NotFetchedError as error:
            raise _not_fetched(entry, missing[place:], to, reason=str(error)) from error
        _verify(archive, laid / archive.file, progress, fetched=True)
    with atomic_folder(to, flush=False) as side:
        for archive in entry.archives:
            unpack(laid / archive.file, side, places=archive.places, progress=progress)
        for file, text in entry.files:
            (side / file).write_text(text, encoding="utf-8")
    for archive in missing:
        (laid / archive.file).unlink(missing_ok=True)
    if laid.is_dir() and not any(laid.iterdir()):
        laid.rmdir()
    return to


def _refuse(entry: DataSet, to: Path) -> None:
    if not to.name:
        raise InputError(f"{to}: give the name of a new folder with --to")
    if not entry.archives:
        raise InputError(f"{entry.name}: {entry.by_hand.format(to=to)}")
    if to.exists() and not to.is_dir():
        raise InputError(f"{to}: is a file: give a folder with --to")
    try:
        if to.is_dir() and any(to.iterdir()):
            raise InputError(f"{to}: holds something already: give a new folder with --to")
    except OSError as error:
        raise not_writable(to, error) from error


def _remaining(archive: Archive, laid: Path) -> int:
    part = laid / (archive.file + ".part")
    return max(0, (archive.size or 0) - (part.stat().st_size if part.is_file() else 0))


def _unpacked(entry: DataSet, laid: Path) -> int:
    """Bytes that unpacking takes at the least: those of images, which hardly shrink."""
    return sum(
        (laid / a.file).stat().st_size if (laid / a.file).is_file() else a.size or 0
        for a in entry.archives
    )


def _verify(
    archive: Archive, path: Path, progress: Progress | None, *, fetched: bool = False
) -> None:
    digest = digest_of(path, archive.algorithm, progress)
    if digest == archive.digest:
        return
    if fetched:  # else the next call would go on with what is wrong
        path.unlink()
    raise InputError(
        f"{path}: is not the published file ({_name(archive)} {digest}, expected "
        f"{archive.digest}): "
        + ("it is removed; run this again" if fetched else "fetch it again, or remove it")
    )


def _not_fetched(
    entry: DataSet, missing: list[Archive], to: Path, *, reason: str
) -> NotFetchedError:
    """What to fetch elsewhere, and where to lay it; the first line has the reason."""
    laid = archives_folder(to)
    lines = [
        f"{archive.urls[0]} ({_gib(archive.size)}, {_name(archive)} {archive.digest}): "
        f"fetch it elsewhere and lay it at {laid / archive.file}"
        for archive in missing
    ]
    return NotFetchedError(
        f"{entry.name}: {missing[0].file} was not fetched ({reason}): run this again to go on, or",
        *lines,
        "then run this again: nothing more is fetched",
    )


def _name(archive: Archive) -> str:
    return {"sha256": "SHA-256", "md5": "MD5"}[archive.algorithm]


def _gib(size: int | None) -> str:
    return "size not published" if size is None else f"{size} bytes"
