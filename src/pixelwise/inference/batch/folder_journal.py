"""The journal of a folder of results: which files prediction wrote, and where a run stopped.

OUT/.pixelwise-predict.jsonl has one line with everything that decides the results, and one line
for each finished image. Results are first written to OUT/.pixelwise-predict.NUMBER.part and flushed
to disk, then their lines are, and only then are they renamed. A complete line therefore guarantees
complete results, and the next run finishes the renaming if the process is killed in between.

A run that completes reduces its journal to the SHA-256 of each file that it or an earlier run
wrote. A later run replaces these files. Any other file, such as a mask that was drawn or corrected
by hand, is replaced only on request.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError
from pixelwise.file_io import append_whole, atomic, flush_folder, make_folder, sha256
from pixelwise.folder_lock import FolderLock
from pixelwise.overwriting import foreign_files

NAME = ".pixelwise-predict"
FORMAT = 3
PNG_END = b"IEND\xaeB`\x82"
COMMIT_SECONDS = 1.0
"""Results are committed in groups of this duration, because each commit flushes twice."""


@dataclass(frozen=True)
class FileStamp:
    """Size in bytes and modification time in nanoseconds, by which changed files are detected."""

    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Raise OSError if the file does not exist."""
        state = path.stat()
        return cls(state.st_size, state.st_mtime_ns)


@dataclass(frozen=True)
class _Entry:
    """A finished image, as its line in the journal.

    Args:
        image: Its path.
        size: Its size in bytes before it was read.
        modified: Its modification time before it was read.
        files: The SHA-256 of each result, by its final name.
        sizes: Its size in bytes.
        staged: The temporary name of each result, by its final name, until it is renamed.
    """

    image: str
    size: int
    modified: int
    files: dict[str, str]
    sizes: dict[str, int]
    staged: dict[str, str]

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


class Journal:
    """The journal of the results in a folder, which it locks for this process inside `with`.

    All methods are called from one thread, except for `stage` and `reserve`. They raise OSError if
    the folder cannot be written; what has been committed stays.

    Args:
        out: The folder of the results.
        settings: Everything besides the images that decides the results, as plain JSON. None for
            results that are not resumed.
        overwrite: Whether to replace files that are not in the journal.

    Attributes:
        header: The first line of the journal.
        tile_progress: The file for the progress of the image that is being predicted. It is kept
            until a run completes or starts over.
        outdated: Whether `begin` found an unfinished run with other settings, and discarded it.
    """

    def __init__(
        self, out: Path, settings: Mapping[str, Any] | None = None, *, overwrite: bool = False
    ) -> None:
        self.out = out
        self.path = out / f"{NAME}.jsonl"
        self.tile_progress = out / f"{NAME}.tiles"
        self.header = _header(settings)
        self.outdated = False
        self._overwrite = overwrite
        self._lock = FolderLock(out, "predict")
        self._start_lock = threading.Lock()
        self._started = False
        self._found_header = ""
        self._numbers = itertools.count()
        self._written: dict[str, str] = {}  # the SHA-256 of earlier results by name
        self._entries: dict[str, _Entry] = {}  # of this run, by image
        self._digests: dict[Path, str] = {}
        self._waiting: list[_Entry] = []
        self._committed = time.monotonic()

    def __enter__(self) -> Journal:
        self._lock.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        finally:
            if self._started:  # otherwise the files belong to another process
                self._remove_staged()
                if not (self._entries or self._written) and self.header == _header(None):
                    self.path.unlink(missing_ok=True)  # nothing to list, and nothing to resume
            self._lock.release()

    def begin(self, wanted: Mapping[Path, Sequence[str]]) -> set[Path]:
        """Return the images that are finished and unchanged since, and forget all others.

        Args:
            wanted: The names of the results of each image.

        Raises:
            InputError: If a result would replace a file that is not in the journal.
        """
        if not self.out.is_dir():
            return set()
        self.read()
        listed = {name for entry in self._entries.values() for name in entry.files}
        for entry in self._entries.values():
            self._rename(entry)
        self._start_over_unless_same()
        self._remove_staged()
        finished = {
            path: self._entries[_key(path)]
            for path, files in wanted.items()
            if _key(path) in self._entries
            and self._is_valid(self._entries[_key(path)], path, files)
        }
        rest = [name for path, files in wanted.items() if path not in finished for name in files]
        self._written |= self._files()
        # Listed, so that the run can be interrupted and resumed without `overwrite`.
        self._written |= {
            name: sha256(self.out / name)
            for name in rest
            if (self.out / name).is_file()
            and (self._overwrite or (name in listed and _is_cut_off(self.out / name)))
        }
        # Without temporary names: a later result may be staged under the same name.
        self._entries = {e.image: replace(e, staged={}) for e in finished.values()}
        self.check(rest)
        self._rewrite(self.header, self._entries.values())
        return set(finished)

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError if a result would replace a file that is not in the journal."""
        if self._overwrite:
            return
        files = self._files()
        foreign = [self.out / name for name in names if self._is_foreign(name, files)]
        if foreign:
            raise foreign_files(foreign, self.out)

    def reserve(self) -> Path:
        """Return a temporary path for a result that the caller writes and flushes to disk.

        Any thread may call this. The first call creates the folder.

        Raises:
            InputError: If the folder cannot be created.
        """
        self._start()
        return self.out / f"{NAME}.{next(self._numbers)}.part"

    def stage(self, data: bytes) -> Path:
        """Write a result under a temporary path and flush it to disk; any thread may call this."""
        side = self.reserve()
        self._digests[side] = hashlib.sha256(data).hexdigest()
        try:
            with side.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            side.unlink(missing_ok=True)  # the journal may need the room on a full disk
            raise
        return side

    def add(self, image: Path, stamp: FileStamp, results: Mapping[str, Path]) -> None:
        """Record a finished image.

        Args:
            image: The image.
            stamp: Its stamp before it was read.
            results: The temporary path of each result, by its final name.
        """
        files = {
            name: self._digests.pop(side, None) or sha256(side) for name, side in results.items()
        }
        sizes = {name: side.stat().st_size for name, side in results.items()}
        staged = {name: side.relative_to(self.out).as_posix() for name, side in results.items()}
        self._waiting.append(_Entry(_key(image), stamp.size, stamp.modified, files, sizes, staged))
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Write the lines of all images that were added, then rename their results."""
        entries, self._waiting = self._waiting, []
        if entries:
            self.check(name for entry in entries for name in entry.files)
            self._append("".join(entry.line() for entry in entries))
            for entry in entries:
                self._rename(entry)
                self._entries[entry.image] = entry
            flush_folder(self.out)
        self._committed = time.monotonic()

    def remove(self, names: Iterable[str]) -> None:
        """Remove earlier results; files that are not in the journal stay."""
        files = self._files()
        for name in names:
            if name in files and not self._is_foreign(name, files):
                (self.out / name).unlink(missing_ok=True)

    def finish(self) -> None:
        """Commit and reduce the journal to the written files, because the run is complete."""
        self.commit()
        if self.out.is_dir():
            self._written |= self._files()
            with suppress(InputError):  # a full disk: all results are complete, and stay listed
                self._rewrite(_header(None))
        self.tile_progress.unlink(missing_ok=True)

    def _start(self) -> None:
        with self._start_lock:
            if self._started:
                return
            make_folder(self.out)
            self._lock.take()
            if not self.path.exists():
                self._append(self.header)
            self._started = True

    def _rename(self, entry: _Entry) -> None:
        """Give the results their final names; after a kill some may have them already."""
        for name, staged in entry.staged.items():
            foreign = not self._overwrite and self._is_foreign(name, self._written)
            if (self.out / staged).exists() and not foreign:
                (self.out / name).parent.mkdir(exist_ok=True)
                (self.out / staged).replace(self.out / name)

    def _append(self, text: str) -> None:
        with self.path.open("ab", buffering=0) as stream:
            append_whole(stream, text.encode())

    def _rewrite(self, header: str, entries: Iterable[_Entry] = ()) -> None:
        """Write the header, the earlier results that still exist, and entries."""
        written = {n: d for n, d in sorted(self._written.items()) if (self.out / n).exists()}
        lines = [json.dumps({"written": written}) + "\n"] if written else []
        lines += [entry.line() for entry in entries]
        if lines:
            with atomic(self.path) as side:
                side.write_text("".join([header, *lines]), encoding="utf-8")
        else:
            self.path.unlink(missing_ok=True)

    def read(self) -> None:
        """Read the journal. That of another version has no SHA-256, and lists nothing."""
        try:
            text = self.path.read_text(encoding="utf-8")
            self._found_header, *lines = text.splitlines(keepends=True)
        except (OSError, ValueError):  # missing, empty, or not text
            return
        for line in lines:
            try:
                content = json.loads(line)
                if content.keys() == {"written"}:
                    self._written = dict(content["written"])
                    continue
                entry = _Entry(**content)
                self._entries[entry.image] = entry
            except (AttributeError, TypeError, ValueError):
                break  # torn by a kill, before its results were renamed

    def _start_over_unless_same(self) -> None:
        """Turn the results of a run with other settings, or to overwrite, into earlier ones."""
        if self._found_header == self.header and not self._overwrite:
            return
        unfinished = bool(self._entries or self._side_files()) or self.tile_progress.exists()
        if unfinished and not self._overwrite:
            self.outdated = self._found_header not in ("", _header(None))
        self._written |= self._files()
        self._entries = {}
        self.tile_progress.unlink(missing_ok=True)

    def _files(self) -> dict[str, str]:
        """Return the SHA-256 of all results, by name."""
        later = (entry.files for entry in self._entries.values())
        return dict(self._written, **{name: d for files in later for name, d in files.items()})

    def _is_foreign(self, name: str, files: Mapping[str, str]) -> bool:
        """Return whether a name belongs to a file with another content than the journal says."""
        path = self.out / name
        if not os.path.lexists(path):
            return False
        try:
            return name not in files or sha256(path) != files[name]
        except OSError:
            return True

    def _is_valid(self, entry: _Entry, path: Path, files: Sequence[str]) -> bool:
        try:
            sizes = {name: (self.out / name).stat().st_size for name in files}
            stamp = FileStamp(entry.size, entry.modified)
            return entry.sizes == sizes and stamp == FileStamp.of(path)
        except OSError:
            return False

    def _remove_staged(self) -> None:
        for side in self._side_files():
            if side.is_dir():
                shutil.rmtree(side, ignore_errors=True)
            else:
                side.unlink(missing_ok=True)

    def _side_files(self) -> list[Path]:
        """List staged results, half-written journals, and files of older versions."""
        files = [*self.out.glob(f"{NAME}.*"), *self.out.glob(f".{NAME}.jsonl.*.part")]
        return [file for file in files if file not in {self.path, self.tile_progress}]


def _is_cut_off(path: Path) -> bool:
    """Return whether a result is not a complete PNG file, as after a power failure."""
    return path.suffix == ".png" and path.is_file() and not path.read_bytes().endswith(PNG_END)


def _header(settings: Mapping[str, Any] | None) -> str:
    return json.dumps({"format": FORMAT, "settings": settings}, sort_keys=True) + "\n"


def _key(path: Path) -> str:
    return str(path.resolve())
