"""Archives from strangers, unpacked so that they can do no harm.

Only files and folders below the target are made. A path that leads outside, a link, a device, a
name that some system reads in another way, too many entries or too many bytes: each ends the work,
and so does a file that comes twice with different content. Rights and times are not taken.
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

from pixelwise.errors import InputError

MAX_ENTRIES = 500_000
MAX_RATIO = 16
"""Unpacked bytes over those of the archive. Images hardly shrink; masks and outlines do, less."""
FREE_BYTES = 64 << 20
"""As many are allowed whatever the ratio."""
CHUNK = 1 << 20

Progress = Callable[[str, int, int | None], None]
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a zip with a compression that Python does not know
    RuntimeError,  # an encrypted zip
    UnicodeDecodeError,
)


@dataclass(frozen=True)
class _Entry:
    """size: as the archive claims. kind: what it is in words, where it is no file and no folder."""

    name: str
    is_folder: bool
    size: int
    kind: str
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    target: Path,
    *,
    places: tuple[tuple[str, str], ...] = (("", ""),),
    progress: Progress | None = None,
) -> None:
    """Unpack a zip or tar (plain, gzip, bzip2, xz) below the folder `target`.

    places: (beginning of a name in the archive, what stands there below `target`); the first that
        fits counts, and entries that begin with none of them are left out, once they are looked at.
    progress: called with what is done, and the bytes written so far.

    Raises InputError that names the archive and the entry; what was written by then stays.
    """
    size = archive.stat().st_size
    most = FREE_BYTES + MAX_RATIO * size
    claimed = written = entries = 0
    with ExitStack() as stack:
        try:
            for entry in _entries(archive, stack):
                entries += 1
                claimed += entry.size
                if entries > MAX_ENTRIES:
                    raise InputError(f"{archive}: has more than {MAX_ENTRIES} entries{_REFUSED}")
                if claimed > most:
                    raise _too_large(archive, most)
                if entry.kind:
                    raise InputError(f"{archive}: {entry.name!r} is {entry.kind}{_REFUSED}")
                parts = _parts(archive, entry.name)
                path = _placed(parts, places)
                if path is None:
                    continue
                try:
                    if entry.is_folder:
                        (target / path).mkdir(parents=True, exist_ok=True)
                        continue
                    (target / path).parent.mkdir(parents=True, exist_ok=True)
                except (FileExistsError, NotADirectoryError) as error:
                    raise InputError(
                        f"{archive}: {entry.name!r} is a file and a folder at once{_REFUSED}"
                    ) from error
                with entry.open() as source:
                    room = most - written
                    written += _write(archive, entry.name, source, target / path, room)
                if written > most:
                    raise _too_large(archive, most)
                if progress is not None:
                    progress("unpacking", written, None)
        except _DAMAGED as error:
            raise _damaged(archive, error) from error
        except OSError as error:
            if error.errno is None:  # gzip's, not the system's
                raise _damaged(archive, error) from error
            raise


_REFUSED = ": nothing of it is used; fetch the archive from its publisher"


def _too_large(archive: Path, most: int) -> InputError:
    return InputError(
        f"{archive}: unpacks to more than {most >> 20} MiB, {MAX_RATIO} times its own "
        f"size{_REFUSED}"
    )


def _damaged(archive: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{archive}: is damaged or no zip or tar ({reason}): fetch it again")


def _entries(archive: Path, stack: ExitStack) -> Iterator[_Entry]:
    if zipfile.is_zipfile(archive):
        return _of_zip(stack.enter_context(zipfile.ZipFile(archive)))
    return _of_tar(stack.enter_context(tarfile.open(archive)))


def _of_zip(file: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in file.infolist():
        mode = stat.S_IFMT(info.external_attr >> 16)
        kind = "" if mode in (0, stat.S_IFREG, stat.S_IFDIR) else "a link or a device"
        yield _Entry(
            info.orig_filename,  # `filename` is cut at a NUL and has its slashes turned
            info.is_dir(),
            info.file_size,
            kind,
            lambda info=info: file.open(info),  # type: ignore[misc]
        )


def _of_tar(file: tarfile.TarFile) -> Iterator[_Entry]:
    for member in file:
        kind = "" if member.isreg() or member.isdir() else "a link or a device"
        yield _Entry(
            member.name,
            member.isdir(),
            member.size,
            kind,
            lambda member=member: file.extractfile(member),  # type: ignore[misc, arg-type]
        )


def _parts(archive: Path, name: str) -> list[str]:
    """The steps of an entry's path, of which each is a plain name on every system."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    plain = (
        not name.startswith("/")
        and ".." not in parts
        and not any(character in name for character in "\\:")
        and name.isprintable()
    )
    if not plain:
        raise InputError(f"{archive}: {name!r} may lead outside of the folder{_REFUSED}")
    return parts


def _placed(parts: list[str], places: tuple[tuple[str, str], ...]) -> Path | None:
    name = "/".join(parts)
    for beginning, stands_for in places:
        if name.startswith(beginning):
            placed = stands_for + name[len(beginning) :]
            return Path(*placed.split("/")) if placed else None
    return None


def _write(archive: Path, name: str, source: IO[bytes], path: Path, room: int) -> int:
    """Write an entry, or compare it with the same one of an earlier archive; bytes written.

    room: of the bytes beyond these no more than a chunk is written.
    """
    try:
        stream = path.open("xb")
    except FileExistsError:
        if path.is_file() and _same(source, path):
            return 0
        raise InputError(f"{archive}: {name!r} is there twice, and differs{_REFUSED}") from None
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
