"""The manifest of a job: one JSON line for each shard whose results are complete.

OUT/.pixelwise-cluster/manifest.jsonl, or manifest-3-of-16.jsonl for a part of the job, begins with
a line that holds everything that decides the results. The line of a shard is written after all of
its results have their final names. A shard without a line, or whose images have changed, is
predicted again. A last line says that the job, or the part, has run to its end.
parts/NUMBER.json holds what is not needed to resume: names, rows of the table, faults.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pixelwise.cluster.output import Output
from pixelwise.errors import InputError
from pixelwise.file_io import append_whole, make_folder

FORMAT = 1
UPLOAD_SECONDS = 10.0
"""Object stores cannot append: a manifest there is written again, at most this often."""


@dataclass(frozen=True)
class Record:
    """A complete shard.

    Args:
        shard: Its number.
        key: What identifies its images; see `Shard.key`.
        images: The number of images.
        files: The number of results.
        size: The size of all results in bytes.
        digest: A digest of the names and contents of all results.
        faults: The number of images that could not be predicted.
    """

    shard: int
    key: str
    images: int
    files: int
    size: int
    digest: str
    faults: int = 0


@dataclass
class Content:
    """What a manifest says.

    Args:
        header: Its first line.
        records: The records of each shard: more than one if it was predicted again.
        finished: How often the job ran to its end.
    """

    header: dict[str, Any]
    records: dict[int, list[Record]] = field(default_factory=dict)
    finished: int = 0


class Manifest:
    """A manifest that is being written.

    Args:
        output: Where the results are.
        part: (number from 1, count) of a part of the job; None for all of it.
    """

    def __init__(self, output: Output, part: tuple[int, int] | None) -> None:
        self.output, self.part = output, part
        self.name = "manifest.jsonl" if part is None else f"manifest-{part[0]}-of-{part[1]}.jsonl"
        self._text = ""
        self._uploaded = time.monotonic()

    def read(self) -> Content | None:
        """Return what the manifest says; None if there is none, or of another format."""
        data = self.output.read(self.name)
        return None if data is None else parse(data.decode("utf-8", "replace"))

    def begin(self, header: Mapping[str, Any], kept: list[Record], *, finished: int) -> None:
        """Write a manifest with the records that are still valid."""
        lines = [json.dumps({"format": FORMAT, **header}, sort_keys=True)]
        lines += [json.dumps(asdict(record)) for record in kept]
        lines += [_FINISHED] * finished
        self._text = "".join(f"{line}\n" for line in lines)
        self.output.write(self.name, self._text.encode())

    def add(self, record: Record) -> None:
        """Add a complete shard."""
        self._append(json.dumps(asdict(record)))

    def finish(self) -> None:
        """Say that the job has run to its end."""
        self._append(_FINISHED)
        self.flush()

    def flush(self) -> None:
        """Write what has not been uploaded yet."""
        if self.output.address is not None:
            self.output.write(self.name, self._text.encode())
            self._uploaded = time.monotonic()

    def _append(self, line: str) -> None:
        if self.output.address is None:
            folder = make_folder(self.output.state_folder)
            with (folder / self.name).open("ab", buffering=0) as stream:
                append_whole(stream, f"{line}\n".encode())
            return
        self._text += f"{line}\n"
        if time.monotonic() - self._uploaded > UPLOAD_SECONDS:
            self.flush()


_FINISHED = json.dumps({"finished": True})


def parse(text: str) -> Content | None:
    """Parse a manifest; a line that was torn by a kill ends it."""
    content: Content | None = None
    for line in text.splitlines():
        try:
            value = json.loads(line)
            if content is None:
                if value["format"] != FORMAT:
                    return None
                content = Content(value)
            elif "finished" in value:
                content.finished += 1
            else:
                record = Record(**value)
                content.records.setdefault(record.shard, []).append(record)
        except (KeyError, TypeError, ValueError):
            break
    return content


def parse_part(text: str) -> tuple[int, int]:
    """Parse `3/16`; raise InputError if it is not a part of a job."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputError(
            f"--shard {text}: give NUMBER/COUNT with a number from 1 to the count, such as 3/16"
        )
    return int(number), int(count)
