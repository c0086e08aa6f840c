"""Safe unpacking of archives from untrusted sources.

Only files and folders below the target are created. A path that leads outside, a link, a device, a
name that a system may interpret differently, too many entries or too many bytes: each of them stops
the unpacking with an error, and so does a file that occurs twice with different content.
Permissions and times are not restored.
"""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pixelwise.data.published.download import CHUNK, Progress
from pixelwise.errors import InputError

MAX_ENTRIES = 500_000
MAX_RATIO = 16
"""Largest ratio of unpacked to packed bytes. Images compress little; masks and JSON more."""
MIN_LIMIT = 64 << 20
"""Unpacked bytes that are allowed whatever the ratio."""

_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a zip compression that Python does not support
    RuntimeError,  # an encrypted zip
    UnicodeDecodeError,
)
_REMEDY = ": the dataset was not created; download the archive from its publisher"


@dataclass(frozen=True)
class _Entry:
    """An entry of an archive.

    Attributes:
        size: Unpacked bytes according to the archive.
        is_special: Whether it is neither a file nor a folder.
        open: Opens the content.
    """

    name: str
    is_folder: bool
    is_special: bool
    size: int
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    target: Path,
    *,
    extract: tuple[tuple[str, str], ...] = (("", ""),),
    progress: Progress | None = None,
) -> None:
    """Unpack a zip or tar archive (plain, gzip, bzip2, xz).

    Args:
        archive: The archive.
        target: An existing folder.
        extract: (prefix in the archive, its replacement below `target`). The first matching prefix
            counts. Entries without a matching prefix are checked but not unpacked.
        progress: Called with the activity and the bytes written so far.

    Raises:
        InputError: If the archive is damaged or unsafe. Files that were already written remain.
    """
    limit = MIN_LIMIT + MAX_RATIO * archive.stat().st_size
    claimed = written = entries = 0
    with ExitStack() as stack:
        try:
            for entry in _entries(archive, stack):
                entries += 1
                claimed += entry.size
                if entries > MAX_ENTRIES:
                    raise InputError(f"{archive}: has more than {MAX_ENTRIES} entries{_REMEDY}")
                if claimed > limit:
                    raise _too_large(archive, limit)
                path = _target_path(archive, entry, extract)
                if path is None or not _make_folders(archive, entry, target / path):
                    continue
                with entry.open() as source:
                    room = limit - written
                    written += _write(archive, entry.name, source, target / path, room)
                if written > limit:
                    raise _too_large(archive, limit)
                if progress is not None:
                    progress("unpacking", written, None)
        except _DAMAGED as error:
            raise _damaged(archive, error) from error
        except OSError as error:
            if error.errno is None:  # raised by gzip, not by the system
                raise _damaged(archive, error) from error
            raise


def _too_large(archive: Path, limit: int) -> InputError:
    return InputError(
        f"{archive}: unpacks to more than {limit >> 20} MiB, {MAX_RATIO} times its size{_REMEDY}"
    )


def _damaged(archive: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"{archive}: is damaged or not a zip or tar archive ({reason}): download it again"
    )


def _entries(archive: Path, stack: ExitStack) -> Iterator[_Entry]:
    if zipfile.is_zipfile(archive):
        return _zip_entries(stack.enter_context(zipfile.ZipFile(archive)))
    return _tar_entries(stack.enter_context(tarfile.open(archive)))


def _zip_entries(file: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in file.infolist():
        mode = stat.S_IFMT(info.external_attr >> 16)
        yield _Entry(
            info.orig_filename,  # `filename` is cut at a NUL and has its backslashes replaced
            is_folder=info.is_dir(),
            is_special=mode not in (0, stat.S_IFREG, stat.S_IFDIR),
            size=info.file_size,
            open=lambda info=info: file.open(info),  # type: ignore[misc]
        )


def _tar_entries(file: tarfile.TarFile) -> Iterator[_Entry]:
    for member in file:
        yield _Entry(
            member.name,
            is_folder=member.isdir(),
            is_special=not (member.isreg() or member.isdir()),
            size=member.size,
            open=lambda member=member: file.extractfile(member),  # type: ignore[misc, arg-type]
        )


def _target_path(archive: Path, entry: _Entry, extract: tuple[tuple[str, str], ...]) -> Path | None:
    """The relative path of an entry in the dataset; None if the entry is not wanted.

    Raises:
        InputError: If the entry is a link or a device, or its path is not a plain relative path on
            every system.
    """
    name = entry.name
    if entry.is_special:
        raise InputError(f"{archive}: {name!r} is a link or a device{_REMEDY}")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if (
        name.startswith("/")
        or ".." in parts
        or any(character in name for character in "\\:")
        or not name.isprintable()
    ):
        raise InputError(f"{archive}: {name!r} may lead outside the folder{_REMEDY}")
    name = "/".join(parts)
    for prefix, replacement in extract:
        if name.startswith(prefix):
            renamed = replacement + name[len(prefix) :]
            return Path(*renamed.split("/")) if renamed else None
    return None


def _make_folders(archive: Path, entry: _Entry, path: Path) -> bool:
    """Make the folder of an entry; returns whether the entry has content to write."""
    try:
        (path if entry.is_folder else path.parent).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{archive}: {entry.name!r} is both a file and a folder{_REMEDY}"
        ) from error
    return not entry.is_folder


def _write(archive: Path, name: str, source: IO[bytes], path: Path, room: int) -> int:
    """Write an entry and return its bytes; 0 if an earlier archive contained the same file.

    Writing stops one chunk after `room` bytes.
    """
    try:
        stream = path.open("xb")
    except FileExistsError:
        if path.is_file() and _same(source, path):
            return 0
        raise InputError(
            f"{archive}: {name!r} occurs twice with different content{_REMEDY}"
        ) from None
    count = 0
    with stream:
        while count <= room and (chunk := source.read(CHUNK)):
            count += stream.write(chunk)
    return count


def _same(source: IO[bytes], path: Path) -> bool:
    with path.open("rb") as other:
        while chunk := source.read(CHUNK):
            if chunk != other.read(len(chunk)):
                return False
        return not other.read(1)
