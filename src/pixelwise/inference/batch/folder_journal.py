"""The journal of a run over many images, from which an interrupted run is resumed.

OUT/.pixelwise-predict.jsonl has one line with everything that decides the results, and one line
for each finished image. Results are first written to OUT/.pixelwise-predict.NUMBER.part and flushed
to disk, then their lines are, and only then are they renamed. A complete line therefore guarantees
complete results, and the next run finishes the renaming if the process is killed in between. A run
that completes removes its journal.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError
from pixelwise.file_io import append_whole, atomic, flush_folder, lock_folder, make_folder

NAME = ".pixelwise-predict"
FORMAT = 2
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
        files: The size of each result, by its final name.
        staged: The temporary name of each result, by its final name, until it is renamed.
    """

    image: str
    size: int
    modified: int
    files: dict[str, int]
    staged: dict[str, str]

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


class Journal:
    """The journal of the results in a folder, which it locks for this process inside `with`.

    All methods are called from one thread, except for `stage` and `reserve`. They raise OSError if
    the folder cannot be written; what has been committed stays.

    Args:
        out: The folder of the results.
        settings: Everything besides the images that decides the results, as plain JSON.

    Attributes:
        header: The first line of the journal.
        tile_progress: The file for the progress of the image that is being predicted. It is kept
            until a run completes or starts over.
        outdated: Whether `begin` found an unfinished run with other settings, and discarded it.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out = out
        self.path = out / f"{NAME}.jsonl"
        self.tile_progress = out / f"{NAME}.tiles"
        self.header = json.dumps({"format": FORMAT, "settings": settings}, sort_keys=True) + "\n"
        self.outdated = False
        self._lock: int | None = None
        self._start_lock = threading.Lock()
        self._started = False
        self._numbers = itertools.count()
        self._waiting: list[_Entry] = []
        self._committed = time.monotonic()

    def __enter__(self) -> Journal:
        if self.out.is_dir():
            self._lock_folder()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        finally:
            if self._started:  # otherwise the files belong to another process
                self._remove_staged()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def begin(self, wanted: Mapping[Path, Sequence[str]], *, overwrite: bool) -> set[Path]:
        """Return the images that are finished and unchanged since, and forget all others.

        Args:
            wanted: The names of the results of each image.
            overwrite: Whether to forget all images.
        """
        if not self.out.is_dir():
            return set()
        entries = {} if overwrite else self._read()
        for entry in entries.values():
            self._rename(entry)
        self._remove_staged()
        finished = {
            path: entries[_key(path)]
            for path, files in wanted.items()
            if _key(path) in entries and self._is_valid(entries[_key(path)], path, files)
        }
        if finished:
            with atomic(self.path) as side:
                # Without temporary names: a later result may be staged under the same name.
                lines = [replace(entry, staged={}).line() for entry in finished.values()]
                side.write_text("".join([self.header, *lines]), encoding="utf-8")
        else:
            self.path.unlink(missing_ok=True)
        if overwrite or self.outdated:
            self.tile_progress.unlink(missing_ok=True)
        return set(finished)

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
        files = {name: side.stat().st_size for name, side in results.items()}
        staged = {name: side.name for name, side in results.items()}
        self._waiting.append(_Entry(_key(image), stamp.size, stamp.modified, files, staged))
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Write the lines of all images that were added, then rename their results."""
        entries, self._waiting = self._waiting, []
        if entries:
            self._append("".join(entry.line() for entry in entries))
            for entry in entries:
                self._rename(entry)
            flush_folder(self.out)
        self._committed = time.monotonic()

    def finish(self) -> None:
        """Commit and remove the journal, because the run is complete."""
        self.commit()
        self.path.unlink(missing_ok=True)
        self.tile_progress.unlink(missing_ok=True)

    def _start(self) -> None:
        with self._start_lock:
            if self._started:
                return
            make_folder(self.out)
            if self._lock is None:
                self._lock_folder()
            if not self.path.exists():
                self._append(self.header)
            self._started = True

    def _lock_folder(self) -> None:
        try:
            self._lock = lock_folder(self.out)
        except BlockingIOError as error:
            raise InputError(
                f"{self.out}: another pixelwise predict is writing there: wait until it ends, or "
                "choose another --out"
            ) from error

    def _rename(self, entry: _Entry) -> None:
        """Give the results their final names; after a kill some may have them already."""
        for name, staged in entry.staged.items():
            if (self.out / staged).exists():
                (self.out / staged).replace(self.out / name)

    def _append(self, text: str) -> None:
        with self.path.open("ab", buffering=0) as stream:
            append_whole(stream, text.encode())

    def _read(self) -> dict[str, _Entry]:
        """Return the entries by image; none if the journal was started with other settings."""
        try:
            header, *lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, ValueError):  # missing, empty, or not text
            return {}
        entries: dict[str, _Entry] = {}
        if header != self.header:
            self.outdated = bool(lines) or bool(self._side_files()) or self.tile_progress.exists()
            return {}
        for line in lines:
            try:
                entry = _Entry(**json.loads(line))
            except (TypeError, ValueError):
                break  # torn by a kill, before its results were renamed
            entries[entry.image] = entry
        return entries

    def _is_valid(self, entry: _Entry, path: Path, files: Sequence[str]) -> bool:
        try:
            sizes = {name: (self.out / name).stat().st_size for name in files}
            stamp = FileStamp(entry.size, entry.modified)
            return entry.files == sizes and stamp == FileStamp.of(path)
        except OSError:
            return False

    def _remove_staged(self) -> None:
        for side in self._side_files():
            side.unlink(missing_ok=True)

    def _side_files(self) -> list[Path]:
        """List staged results, half-written journals, and files of older versions."""
        files = [*self.out.glob(f"{NAME}.*"), *self.out.glob(f".{NAME}.jsonl.*.part")]
        return [file for file in files if file not in {self.path, self.tile_progress}]


def _key(path: Path) -> str:
    return str(path.resolve())
