"""What of a run over many images is finished: an interrupted one goes on from there.

OUT/.pixelwise-predict.jsonl has a line for what decides the results, and one for each finished
image. Results are first written to OUT/.pixelwise-predict.NUMBER.part and flushed; then their
lines are, and only then do they get their names: a line that is whole promises results that are. A
run that was killed in between is completed by its successor. A run that comes to its end removes
the journal.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError
from pixelwise.file_io import append_whole, atomic, flush_folder, lock_folder, make_folder

NAME = ".pixelwise-predict"
FORMAT = 2
COMMIT_SECONDS = 1.0
"""Results get their names, and their lines, in groups: two flushes for each group."""


@dataclass(frozen=True)
class FileStamp:
    """By which a file is known to be as it was: bytes, and nanoseconds of its last change."""

    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Raises OSError where there is no such file."""
        state = path.stat()
        return cls(state.st_size, state.st_mtime_ns)


@dataclass(frozen=True)
class _Entry:
    """A finished image.

    files: name and size of each result. staged: name of each, where it has not got it yet, and
    what it is called until then.
    """

    image: str
    stamp: FileStamp
    files: dict[str, int]
    staged: dict[str, str]

    def line(self) -> str:
        about = {
            "image": self.image,
            "size": self.stamp.size,
            "modified": self.stamp.modified,
            "files": self.files,
            "staged": self.staged,
        }
        return json.dumps(about) + "\n"

    @classmethod
    def read(cls, line: str) -> _Entry:
        """Raises KeyError, TypeError or ValueError for a line that is torn."""
        about = json.loads(line)
        stamp = FileStamp(int(about["size"]), int(about["modified"]))
        return cls(str(about["image"]), stamp, dict(about["files"]), dict(about["staged"]))


class Journal:
    """The journal of the results in a folder. Inside `with`, no other process can use that folder.

    settings: all that decides what is written besides the image, as plain JSON.

    trail: a file for how far the image has come that is being worked on; it stays until a run has
    come to its end, or begins anew. outdated: whether what `resume` found was of other settings,
    and so of no use.

    Its methods are called by one thread, but for `stage` and `reserve`. They raise OSError where
    the folder cannot be written; what was committed is kept then.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out = out
        self.path = out / f"{NAME}.jsonl"
        self.tile_progress = out / f"{NAME}.trail"
        self.header = json.dumps({"format": FORMAT, "settings": settings}, sort_keys=True) + "\n"
        self.outdated = False
        self._lock: int | None = None
        self._opening = threading.Lock()
        self._open = False
        self._numbers = itertools.count()
        self._waiting: list[_Entry] = []
        self._committed = time.monotonic()

    def __enter__(self) -> Journal:
        if self.out.is_dir():
            self._take_lock()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.commit()
        finally:
            if self._open:  # else they are not ours
                self._remove_staged()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def resume(self, wanted: Mapping[Path, Sequence[str]]) -> set[Path]:
        """Which of the wanted images are finished, and unchanged since; the rest is forgotten.

        wanted: each image with the names of its results.
        """
        if not self.out.is_dir():
            return set()
        entries = self._read()
        for entry in entries.values():
            self._name(entry)
        self._remove_staged()
        finished = {
            path: entries[_key(path)]
            for path, files in wanted.items()
            if _key(path) in entries and self._holds(entries[_key(path)], path, files)
        }
        if finished:
            with atomic(self.path) as side:
                # Without what was staged: a later result may be staged under the same name.
                lines = [replace(entry, staged={}).line() for entry in finished.values()]
                side.write_text("".join([self.header, *lines]), encoding="utf-8")
        else:
            self.path.unlink(missing_ok=True)
        if self.outdated:
            self.tile_progress.unlink(missing_ok=True)
        return set(finished)

    def begin(self, wanted: Mapping[Path, Sequence[str]], *, overwrite: bool) -> set[Path]:
        """What `resume` gives; to overwrite, nothing, and all is forgotten."""
        if overwrite:
            self.forget()
            return set()
        return self.resume(wanted)

    def forget(self) -> None:
        """Start anew, whatever is finished."""
        if self.out.is_dir():
            self.path.unlink(missing_ok=True)
            self.tile_progress.unlink(missing_ok=True)
            self._remove_staged()

    def reserve(self) -> Path:
        """A name for the time being, of a result that the caller writes and flushes to disk. From
        any thread.

        The first call makes the folder; InputError where that is impossible.
        """
        self._begin()
        return self.out / f"{NAME}.{next(self._numbers)}.part"

    def stage(self, data: bytes) -> Path:
        """Write a result, flushed to disk, under such a name."""
        side = self.reserve()
        try:
            with side.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            side.unlink(missing_ok=True)  # on a full disk the journal may need its room
            raise
        return side

    def add(self, image: Path, stamp: FileStamp, results: Mapping[str, Path]) -> None:
        """An image is finished. stamp: of before it was read; results: names, and where staged."""
        files = {name: side.stat().st_size for name, side in results.items()}
        staged = {name: side.name for name, side in results.items()}
        self._waiting.append(_Entry(_key(image), stamp, files, staged))
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Give what was added its names, and say so on disk."""
        entries, self._waiting = self._waiting, []
        if entries:
            self._append("".join(entry.line() for entry in entries))
            for entry in entries:
                self._name(entry)
            flush_folder(self.out)
        self._committed = time.monotonic()

    def finish(self) -> None:
        """The run has come to its end: commit, and remove the journal."""
        self.commit()
        self.path.unlink(missing_ok=True)
        self.tile_progress.unlink(missing_ok=True)

    def _begin(self) -> None:
        with self._opening:
            if self._open:
                return
            make_folder(self.out)
            if self._lock is None:
                self._take_lock()
            if not self.path.exists():
                self._append(self.header)
            self._open = True

    def _take_lock(self) -> None:
        try:
            self._lock = lock_folder(self.out)
        except BlockingIOError as error:
            raise InputError(
                f"{self.out}: another pixelwise predict is writing there: wait for its end, or "
                "choose another --out"
            ) from error

    def _name(self, entry: _Entry) -> None:
        """Give its results their names; after a kill some may have them already."""
        for name, staged in entry.staged.items():
            if (self.out / staged).exists():
                (self.out / staged).replace(self.out / name)

    def _append(self, text: str) -> None:
        with self.path.open("ab", buffering=0) as stream:
            append_whole(stream, text.encode())

    def _read(self) -> dict[str, _Entry]:
        """The entries by image; none where it was begun with other settings."""
        try:
            header, *lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, ValueError):  # not there, empty, or not text
            return {}
        entries: dict[str, _Entry] = {}
        self.outdated = header != self.header and (bool(lines) or self.tile_progress.exists())
        if header == self.header:
            for line in lines:
                try:
                    entry = _Entry.read(line)
                except (KeyError, TypeError, ValueError):
                    break  # torn: what it would have promised has got no names
                entries[entry.image] = entry
        return entries

    def _holds(self, entry: _Entry, path: Path, files: Sequence[str]) -> bool:
        try:
            sizes = {name: (self.out / name).stat().st_size for name in files}
            return entry.files == sizes and entry.stamp == FileStamp.of(path)
        except OSError:
            return False

    def _remove_staged(self) -> None:
        for pattern in (f"{NAME}.*.part", f".{NAME}.jsonl.*.part"):  # results; the journal anew
            for side in self.out.glob(pattern):
                side.unlink(missing_ok=True)


def _key(path: Path) -> str:
    return str(path.resolve())
