"""A local folder that looks like a dataset in an object store, and holds part of it.

Every image and mask of the store has a file of the same name here: its content, or a placeholder
that says where the content is. `present` replaces a placeholder while the file is read. The content
stays until the mirror is as large as it may be; further files are fetched each time. An epoch reads
every file once, in random order, so that keeping the first files gives as many hits as any choice.
Annotations, which the layouts read, are fetched at once and do not count.

Several processes may use a mirror at the same time: whoever changes a file holds a lock on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

from pixelwise.errors import InputError, name_folder
from pixelwise.file_io import cache_folder, make_folder
from pixelwise.storage.addresses import (
    TRANSFERS,
    RemoteFile,
    as_address,
    fetch,
    in_parallel,
    list_remote,
)

DEFAULT_MIB = 10 << 10
FOLDER = "pixelwise-mirror"
_MAGIC = b"pixelwise placeholder\n"
_STATE = ".pixelwise-mirror"
_LOCKS = 64
_ABANDONED_SECONDS = 24 * 3600

Result = TypeVar("Result")


def local_folder(
    root: str | Path,
    suffixes: Collection[str],
    *,
    limit: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, int | None]:
    """Return a folder, or the mirror of an address, and in how many threads to read it.

    The arguments are those of `mirror`. None leaves the number of threads open.
    """
    address = as_address(root)
    if address is None:
        return Path(root), None
    return mirror(address, suffixes, limit=limit, progress=progress), TRANSFERS


def mirror(
    address: str,
    suffixes: Collection[str],
    *,
    limit: int,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make a local folder look like the one at an address.

    Args:
        address: A folder in an object store.
        suffixes: The suffixes of images and masks, of which placeholders are made.
        limit: The largest size in bytes of the images and masks that are kept.
        progress: Called with the number of files that are ready and of all files.

    Returns:
        The local folder, below `$PIXELWISE_CACHE` or `~/.cache/pixelwise`.

    Raises:
        InputError: If there are no files, or the folder cannot be written.
        StorageError: If the store does not answer.
    """
    base = cache_folder()
    if base is None:
        raise InputError("cache: there is no home folder: set the variable PIXELWISE_CACHE")
    files = list_remote(address, recursive=True)
    if not files:
        raise InputError(f"{address}: no files there: check the address")
    root = base / FOLDER / address.replace("://", "/").rstrip("/")
    make_folder(root / _STATE)
    name_folder(root, address.rstrip("/"))
    with _locked(root, "list"):
        names = {file.address[len(address.rstrip("/")) + 1 :]: file for file in files}
        for side in (root / _STATE).glob("*.part"):  # of a process that was killed
            if time.time() - side.stat().st_mtime > _ABANDONED_SECONDS:
                side.unlink(missing_ok=True)
        for path in _walk(root):
            if path.relative_to(root).as_posix() not in names:
                path.unlink()

        def make(item: tuple[str, RemoteFile]) -> None:
            name, file = item
            _synchronize(root, root / name, file, lazily=Path(name).suffix.lower() in suffixes)

        done = 0
        for start in range(0, len(names), 1000):
            part = list(names.items())[start : start + 1000]
            in_parallel(make, part)
            done += len(part)
            if progress is not None:
                progress(done, len(names))
        (root / _STATE / "origin.json").write_text(json.dumps({"address": address}))
        _limit(root, names, suffixes, limit)
    return root


def origin(root: Path) -> str | None:
    """Return the address that a folder mirrors; None for any other folder."""
    state = root / _STATE / "origin.json"
    if FOLDER in root.parts and state.is_file():
        return str(json.loads(state.read_text())["address"])
    return as_address(root)


@contextmanager
def present(path: Path) -> Iterator[None]:
    """Make sure that a file can be read within this block; other files are always present.

    Raises:
        InputError: If the file is no longer in the store, or access is denied.
        StorageError: If the store does not send it.
    """
    root = _find_root(path.parent) if FOLDER in path.parts else None
    if root is None:
        yield
        return
    name = _lock_name(path)
    with _locked(root, name, shared=True):
        placeholder = _read_placeholder(path)
        if placeholder is None:
            yield
            return
    with _locked(root, name):
        placeholder = _read_placeholder(path)  # another process may have fetched it
        if placeholder is None:
            yield
            return
        kept = False
        try:
            _fetch(root, path, placeholder)
            kept = _admit(root, placeholder.size)
            yield
        finally:
            if not kept:
                _write_placeholder(root, path, placeholder)


def when_present(function: Callable[[Path], Result]) -> Callable[[Path], Result]:
    """Make sure that the file that a function reads is present."""

    @wraps(function)
    def read(path: Path) -> Result:
        with present(path):
            return function(path)

    return read


def _synchronize(root: Path, path: Path, file: RemoteFile, *, lazily: bool) -> None:
    """Bring one file up to date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        state = path.stat()
    except OSError:
        state = None
    if state is not None:
        if (state.st_size, int(state.st_mtime)) == (file.size, _stamp(file)):
            return
        if lazily and _read_placeholder(path) == file:
            return
    if lazily:
        _write_placeholder(root, path, file)
    else:
        _fetch(root, path, file)


def _fetch(root: Path, path: Path, file: RemoteFile) -> None:
    side = _side(root)
    fetch(file.address, side, size=file.size)
    os.utime(side, (_stamp(file), _stamp(file)))
    side.replace(path)


def _limit(root: Path, names: dict[str, RemoteFile], suffixes: Collection[str], limit: int) -> None:
    """Turn files into placeholders if they are too many, and count the others."""
    total = 0
    lazy = {n: file for n, file in names.items() if Path(n).suffix.lower() in suffixes}
    for name, file in lazy.items():
        path = root / name
        if _read_placeholder(path) is None:
            total += file.size
            if total > limit:
                total -= file.size
                with _locked(root, _lock_name(path)):
                    _write_placeholder(root, path, file)
    with _locked(root, "kept"):  # another process may have added some meanwhile
        kept = [f.size for name, f in lazy.items() if _read_placeholder(root / name) is None]
        _write_kept(root, sum(kept), limit)


def _admit(root: Path, size: int) -> bool:
    """Count a file if it may be kept, and return whether it may."""
    with _locked(root, "kept"):
        kept = json.loads((root / _STATE / "kept.json").read_text())
        fits: bool = kept["bytes"] + size <= kept["limit"]
        if fits:
            _write_kept(root, kept["bytes"] + size, kept["limit"])
        return fits


def _write_kept(root: Path, size: int, limit: int) -> None:
    side = _side(root)
    side.write_text(json.dumps({"bytes": size, "limit": limit}))
    side.replace(root / _STATE / "kept.json")


def _read_placeholder(path: Path) -> RemoteFile | None:
    try:
        with path.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                return None
            return RemoteFile(*json.loads(stream.read()))
    except FileNotFoundError:
        return None


def _write_placeholder(root: Path, path: Path, file: RemoteFile) -> None:
    side = _side(root)
    side.write_bytes(_MAGIC + json.dumps([file.address, file.size, file.tag]).encode())
    side.replace(path)


def _side(root: Path) -> Path:
    return root / _STATE / f"{secrets.token_hex(8)}.part"


def _lock_name(path: Path) -> str:
    return str(zlib.crc32(str(path).encode()) % _LOCKS)


def _stamp(file: RemoteFile) -> int:
    """Return the modification time of a fetched file, by which a changed one is recognized."""
    digest = hashlib.sha256(f"{file.size} {file.tag}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % (1 << 30)


def _walk(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        if Path(folder).name != _STATE:
            yield from (Path(folder) / name for name in names)


@lru_cache(maxsize=4096)
def _find_root(folder: Path) -> Path | None:
    return next((f for f in (folder, *folder.parents) if (f / _STATE).is_dir()), None)


@contextmanager
def _locked(root: Path, name: str, *, shared: bool = False) -> Iterator[None]:
    """Lock a name within a mirror against other threads and processes."""
    import fcntl

    handle = os.open(root / _STATE / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
