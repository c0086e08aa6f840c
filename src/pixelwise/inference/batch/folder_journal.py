"""The journal of a run over many images, from which an interrupted run is resumed.

OUT/.pixelwise-predict.jsonl has one line with everything that decides the results, and one line
for each finished image. Results are first written to OUT/.pixelwise-predict.NUMBER.part and flushed
to disk, then their lines are, and only then are they renamed. A complete line therefore guarantees
complete results, and the next run finishes the renaming if the process is killed in between. A run
that completes removes its journal.

A result replaces a file only if prediction wrote that file, too (see `result_mark`), or on request.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pixelwise.file_io import append_whole, atomic, flush_folder, make_folder
from pixelwise.folder_lock import FolderLock
from pixelwise.inference.batch.result_mark import is_cut_off, is_result, mark_file, mark_png
from pixelwise.overwriting import files_of_others

NAME = ".pixelwise-predict"
FORMAT = 2
OVERWRITE = '{"overwrite": true}\n'
"""The second line of the journal of a run that may replace files of others."""
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
        answer: What the run also wants to know about the image, as plain JSON.
    """

    image: str
    size: int
    modified: int
    files: dict[str, int]
    staged: dict[str, str]
    answer: dict[str, Any] | None = None

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


class Journal:
    """The journal of the results in a folder, which it locks for this process inside `with`.

    All methods are called from one thread, except for `stage` and `reserve`. They raise OSError if
    the folder cannot be written; what has been committed stays.

    Args:
        out: The folder of the results.
        settings: Everything besides the images that decides the results, as plain JSON.
        overwrite: Whether to predict all images again, and to replace files that prediction did
            not write. A run that resumes this one may replace them, too.

    Attributes:
        header: The first line of the journal.
        tile_progress: The file for the progress of the image that is being predicted. It is kept
            until a run completes or starts over.
        outdated: Whether `begin` found an unfinished run with other settings, and discarded it.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.out = out
        self.path = out / f"{NAME}.jsonl"
        self.tile_progress = out / f"{NAME}.tiles"
        self.header = json.dumps({"format": FORMAT, "settings": settings}, sort_keys=True) + "\n"
        self._answers: dict[str, dict[str, Any]] = {}
        self.outdated = False
        self._starts_over = self._overwrite = overwrite
        self._lock = FolderLock(out, "predict")
        self._start_lock = threading.Lock()
        self._started = False
        self._numbers = itertools.count()
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
            self._lock.release()

    def begin(self, wanted: Mapping[Path, Sequence[str]]) -> set[Path]:
        """Return the images that are finished and unchanged since, and forget all others.

        Args:
            wanted: The names of the results of each image.

        Raises:
            InputError: If a result would replace a file that prediction did not write.
        """
        if not self.out.is_dir():
            return set()
        entries = {} if self._starts_over else self._read()
        for entry in entries.values():
            self._rename(entry)
        finished = {
            path: entries[_key(path)]
            for path, files in wanted.items()
            if _key(path) in entries and self._is_valid(entries[_key(path)], path, files)
        }
        for entry in finished.values():
            self._answers[entry.image] = entry.answer or {}
        rest = [name for path, files in wanted.items() if path not in finished for name in files]
        listed = {name for entry in entries.values() for name in entry.files}
        damaged = {name for name in rest if name in listed and is_cut_off(self.out / name)}
        self.check(name for name in rest if name not in damaged)
        for name in damaged:
            (self.out / name).unlink()
        self._remove_staged()
        if finished:
            with atomic(self.path) as side:
                # Without temporary names: a later result may be staged under the same name.
                lines = [replace(entry, staged={}).line() for entry in finished.values()]
                side.write_text("".join([*self._head(), *lines]), encoding="utf-8")
        else:
            self.path.unlink(missing_ok=True)
        if self._starts_over or self.outdated:
            self.tile_progress.unlink(missing_ok=True)
        return set(finished)

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError if a result would replace a file that prediction did not write."""
        others = [] if self._overwrite else [self.out / n for n in names if self.is_of_others(n)]
        if others:
            raise files_of_others(others, self.out)

    def is_of_others(self, name: str) -> bool:
        """Return whether there is a file that prediction did not write."""
        return os.path.lexists(self.out / name) and not is_result(self.out / name)

    def reserve(self, suffix: str = ".part") -> Path:
        """Return a temporary path for a result that the caller writes and flushes to disk.

        Any thread may call this. The first call creates the folder.

        Args:
            suffix: End of the name, for writers that derive the format from it.

        Raises:
            InputError: If the folder cannot be created.
        """
        self._start()
        return self.out / f"{NAME}.{next(self._numbers)}{suffix}"

    def stage(self, data: bytes) -> Path:
        """Write a PNG file under a temporary path and flush it; any thread may call this."""
        data = mark_png(data)
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

    def seal(self, side: Path) -> None:
        """Mark and flush another file that the caller wrote under a temporary path."""
        mark_file(side)
        with side.open("rb+") as stream:
            os.fsync(stream.fileno())

    def add(
        self,
        image: Path,
        stamp: FileStamp,
        results: Mapping[str, Path],
        answer: dict[str, Any] | None = None,
    ) -> None:
        """Record a finished image.

        Args:
            image: The image.
            stamp: Its stamp before it was read.
            results: The temporary path of each result, by its final name.
            answer: What the run also wants to know about the image, as plain JSON.
        """
        files = {name: side.stat().st_size for name, side in results.items()}
        staged = {name: side.relative_to(self.out).as_posix() for name, side in results.items()}
        entry = _Entry(_key(image), stamp.size, stamp.modified, files, staged, answer)
        self._answers[entry.image] = answer or {}
        self._waiting.append(entry)
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
            flush_folder(self.out)
        self._committed = time.monotonic()

    def answer(self, image: Path) -> dict[str, Any] | None:
        """Return what was recorded for an image; None if it is not finished."""
        return self._answers.get(_key(image))

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
            self._lock.take()
            if not self.path.exists():
                self._append("".join(self._head()))
            self._started = True

    def _head(self) -> list[str]:
        """Return the lines of a journal before those of the images."""
        return [self.header, OVERWRITE] if self._overwrite else [self.header]

    def _rename(self, entry: _Entry) -> None:
        """Give the results their final names; after a kill some may have them already."""
        for name, staged in entry.staged.items():
            if (self.out / staged).exists() and (self._overwrite or not self.is_of_others(name)):
                (self.out / name).parent.mkdir(exist_ok=True)
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
            if line == OVERWRITE:
                self._overwrite = True
                continue
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
            if side.is_dir():
                shutil.rmtree(side, ignore_errors=True)
            else:
                side.unlink(missing_ok=True)

    def _side_files(self) -> list[Path]:
        """List staged results, half-written journals, and files of older versions."""
        files = [*self.out.glob(f"{NAME}.*"), *self.out.glob(f".{NAME}.jsonl.*.part")]
        return [file for file in files if file not in {self.path, self.tile_progress}]


def has_journal(out: Path) -> bool:
    """Return whether a run into a folder is unfinished."""
    return (out / f"{NAME}.jsonl").exists()


def _key(path: Path) -> str:
    return str(path.resolve())
