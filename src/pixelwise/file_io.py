"""Writing files so that nothing half-written ever stands under a final name."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from pixelwise.errors import InputError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    The side file lies in the same folder, so the rename is atomic. On any error it is removed and
    `path` stays as it was. Raises InputError where the folder cannot be written or is full.
    """
    side = _side_file(path)
    try:
        yield side
        with side.open("rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        side.chmod(0o666 & ~umask)  # mkstemp makes it private
        side.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        raise not_writable(path, error) from error
    finally:
        side.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Give an empty folder beside `path`; on success flush its files and let it replace `path`.

    On any error it is removed and `path` stays as it was. flush: False where the files are on disk
    already, or so many and so easily had again that it is not worth the time.

    Raises InputError where the place cannot be written or is full.
    """
    try:
        side = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    except OSError as error:
        raise not_writable(path, error) from error
    try:
        yield side
        umask = os.umask(0)
        os.umask(umask)
        side.chmod(0o777 & ~umask)  # mkdtemp makes it private
        if flush:
            _flush_below(side)
        _put_in_place(side, path)
        flush_folder(path.parent)
    except OSError as error:
        raise not_writable(path, error) from error
    finally:
        shutil.rmtree(side, ignore_errors=True)


def _flush_below(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            flush_folder(path)
        else:
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())


def _put_in_place(side: Path, target: Path) -> None:
    if not target.exists():
        side.replace(target)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".old"))
    try:
        target.replace(old)
        try:
            side.replace(target)
        except OSError:
            old.replace(target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def cache_folder() -> Path:
    """Weights laid by hand, and what can be made again: $PIXELWISE_CACHE or ~/.cache/pixelwise."""
    return Path(os.environ.get("PIXELWISE_CACHE") or Path.home() / ".cache" / "pixelwise")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def append_whole(stream: FileIO, data: bytes) -> None:
    """Write `data` at the end of an unbuffered file and flush it to disk: all of it, or nothing.

    Raises OSError.
    """
    length = stream.seek(0, os.SEEK_END)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[stream.write(rest) :]
        os.fsync(stream.fileno())
    except OSError:
        stream.truncate(length)
        raise


def remove_side_files(folder: Path) -> None:
    """Remove what `atomic` left in a folder where its process was killed amid a write."""
    for side in folder.glob(".*.part"):
        side.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Have new names in it on disk, where the system can (Windows cannot open a folder)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def lock_folder(folder: Path) -> int | None:
    """Keep other processes that ask from `folder`, until the handle is closed or the process ends.

    None where the system cannot lock a folder. Raises BlockingIOError where another process has it.
    """
    if os.name != "posix":
        return None
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # some network file systems
        os.close(handle)
        return None
    return handle


def make_folder(path: Path) -> Path:
    """Make `path` and its parents and prove that it can be written.

    Raises InputError where it is a file or cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise not_writable(path, error) from error
    return path


def is_file(path: Path) -> bool:
    """`Path.is_file`, and False for a name that no file can have, as from a document."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """`Path.exists`, and False as for `is_file`."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def check_regular(path: Path) -> None:
    """Raise OSError for a pipe or a device, at which reading would wait for ever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def check_folder(path: Path) -> None:
    """Raise InputError now where `make_folder(path)` could not make or write it later."""
    present = next(place for place in (path.resolve(), *path.resolve().parents) if place.exists())
    reason: OSError | None = None
    if not present.is_dir():
        reason = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    elif not os.access(present, os.W_OK | os.X_OK):
        reason = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if reason is not None:
        raise not_writable(path, reason)


def check_writable(path: Path) -> None:
    """Raise InputError now where `atomic(path)` could not be written later."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder: give the name of a file")
    _side_file(path).unlink()


def _side_file(path: Path) -> Path:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise not_writable(path, error) from error
    os.close(handle)
    return Path(name)


def not_writable(path: Path, error: OSError) -> InputError:
    """The error for a path that cannot be written, with the system's reason."""
    reason = error.strerror or str(error)
    return InputError(f"{path}: cannot be written ({reason}): choose another place")
