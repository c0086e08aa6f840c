"""Atomic writes and other file operations: a final name never holds a half-written file."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from pixelwise.errors import InputError

PART = ".pixelwise.part"
"""End of the name of temporary files, by which those that a kill left behind are recognized."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; on success flush it to disk and rename it to `path`.

    The temporary file is in the same folder, so the rename is atomic. On any error it is removed
    and `path` is left unchanged.

    Raises:
        InputError: If the folder cannot be written or the disk is full.
    """
    temporary = _temporary_file(path)
    mode = temporary.stat().st_mode
    try:
        with write_errors(path):
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(stat.S_IMODE(mode))  # some writers put a private file in its place
            temporary.replace(path)
            flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        InputError: As for `atomic`.
    """
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield an empty temporary folder to fill; on success flush it and let it replace `path`.

    On any error the temporary folder is removed and `path` is left unchanged. Callers check first
    that all files in `path` may be replaced (see `pixelwise.overwriting`).

    Args:
        path: The folder to create or replace.
        flush: Whether to flush all files to disk. Pass False if they are flushed already, or are
            numerous and cheap to recreate.

    Raises:
        InputError: If the parent folder cannot be written or the disk is full.
    """
    temporary = _temporary_name(path)
    with write_errors(path):
        temporary.mkdir()
    try:
        with write_errors(path):
            yield temporary
            if flush:
                flush_tree(temporary)
            _replace_folder(temporary, path)
            flush_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def flush_tree(folder: Path) -> None:
    """Flush a folder and everything in it to disk."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            flush_folder(path)
        else:
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())


def _replace_folder(source: Path, target: Path) -> None:
    if not target.exists():
        source.replace(target)
        return
    old = _temporary_name(target, ".old")
    try:
        target.replace(old)
        try:
            source.replace(target)
        except OSError:
            old.replace(target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def cache_folder() -> Path | None:
    """Return the cache folder: $PIXELWISE_CACHE, or ~/.cache/pixelwise.

    It holds weights that the user put there, and files that can be recreated. A user without a
    home folder, as in some containers, has none.
    """
    if chosen := os.environ.get("PIXELWISE_CACHE"):
        return Path(chosen)
    try:
        return Path.home() / ".cache" / "pixelwise"
    except RuntimeError:
        return None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def append_whole(stream: FileIO, data: bytes) -> None:
    """Append `data` to an unbuffered file and flush it to disk, completely or not at all.

    Raises:
        OSError: If the data cannot be written. The file has its previous length then.
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


def remove_temporary_files(folder: Path) -> None:
    """Remove what `atomic` and `atomic_folder` left behind because their process was killed."""
    for temporary in folder.glob(f".*{PART}"):
        if temporary.is_dir() and not temporary.is_symlink():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Flush the names of new files in `folder` to disk. Windows cannot do this."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(path: Path) -> Path:
    """Create `path` and its parents, and check that files can be written there.

    Raises:
        InputError: If `path` is a file, or cannot be created or written.
    """
    with write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    return path


def is_file(path: Path) -> bool:
    """Like `Path.is_file`, but return False for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Like `Path.exists`, but return False for names that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def check_regular(path: Path) -> None:
    """Raise OSError for a pipe or a device, where reading might block forever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def read_text(path: Path) -> str:
    """Read a text file. Raises InputError if it cannot be read or is not UTF-8."""
    try:
        check_regular(path)
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: invalid UTF-8 ({error}): save the file as UTF-8") from error


def read_rows(path: Path) -> list[list[str]]:
    """Read a table: the cells of each line, without spaces around them.

    The first line decides what separates the cells: commas, or the semicolons or tabs of
    spreadsheets.

    Raises:
        InputError: As for `read_text`, or if a cell is too long, as after a missing quotation mark.
    """
    text = read_text(path)
    first = text.partition("\n")[0]
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=max(",;\t", key=first.count), skipinitialspace=True)
    try:
        return [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:
        raise InputError(
            f"{path}: line {reader.line_num}: cannot be read ({error}): save the table as CSV"
        ) from error


def check_folder(path: Path) -> None:
    """Raise InputError if a later `make_folder(path)` would fail. Creates nothing."""
    target = path.resolve()
    existing = next(folder for folder in (target, *target.parents) if folder.exists())
    if not existing.is_dir():
        raise not_writable(path, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise not_writable(path, OSError(errno.EACCES, os.strerror(errno.EACCES)))


def check_writable(path: Path) -> None:
    """Raise InputError if a later `atomic(path)` would fail."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder: give a file name")
    _temporary_file(path).unlink()


def _temporary_file(path: Path) -> Path:
    """Create an empty file beside `path` with the permissions that the process's umask gives."""
    temporary = _temporary_name(path)
    with write_errors(path):
        temporary.touch(exist_ok=False)
    return temporary


def _temporary_name(path: Path, suffix: str = PART) -> Path:
    """Return a hidden name beside `path` that no other process uses."""
    return path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}{suffix}"


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise InputError in place of an OSError from writing a file or folder."""
    try:
        yield
    except OSError as error:
        raise not_writable(path, error) from error


def not_writable(path: Path, error: OSError) -> InputError:
    """Return the error for a path that cannot be written, with the system's reason."""
    reason = error.strerror or str(error)
    return InputError(f"{path}: cannot be written ({reason}): choose another path")
