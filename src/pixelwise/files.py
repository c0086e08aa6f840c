"""Writing files so that nothing half-written ever stands under a final name."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
        _flush_folder(path.parent)
    except OSError as error:
        raise not_writable(path, error) from error
    finally:
        side.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`; on success flush its files and let it replace `path`.

    On any error it is removed and `path` stays as it was. Raises InputError where the place cannot
    be written or is full.
    """
    try:
        side = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise not_writable(path, error) from error
    try:
        yield side
        umask = os.umask(0)
        os.umask(umask)
        side.chmod(0o777 & ~umask)  # mkdtemp makes it private
        for file in side.iterdir():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        _flush_folder(side)
        replaced = side.with_suffix(".old.part")
        if path.exists():
            path.replace(replaced)
        side.replace(path)
        _flush_folder(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise not_writable(path, error) from error
    finally:
        shutil.rmtree(side, ignore_errors=True)


def cache_folder() -> Path:
    """Weights laid by hand, and what can be made again: $PIXELWISE_CACHE or ~/.cache/pixelwise."""
    return Path(os.environ.get("PIXELWISE_CACHE") or Path.home() / ".cache" / "pixelwise")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_side_files(folder: Path) -> None:
    """Remove what `atomic` left in a folder where its process was killed amid a write."""
    for side in folder.glob(".*.part"):
        side.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Have the new name itself on disk, where the system can (Windows cannot open a folder)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
