"""Combine the parts of a job: nothing may be missing, and what ran twice must be equal."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.cluster.job import collect
from pixelwise.cluster.manifest import Content, Manifest, Record, parse
from pixelwise.cluster.output import Output
from pixelwise.cluster.shard_work import details_name, read_details
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.folder_lock import FolderLock
from pixelwise.inference import FolderResult
from pixelwise.inference.tables import check_replaced, check_table, write_table
from pixelwise.storage.addresses import as_address


class IncompleteError(PixelwiseError):
    """Parts of a job are missing, unfinished, or contradict each other."""


@dataclass(frozen=True)
class MergeResult:
    """What `merge` found.

    Args:
        shards: The number of shards.
        found: The rows, faults and flagged images of all parts, and the number of their images.
        notes: One line for each part that ran more than once.
    """

    shards: int
    found: FolderResult
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    output: Output
    name: str
    content: Content

    @property
    def number(self) -> int:
        return int(self.content.header["part"][0])


def merge_parts(
    outputs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    table: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> MergeResult:
    """Combine parts; see `pixelwise.merge`.

    Raises:
        InputError: If an output holds no parts, the parts belong to different jobs, or a file
            cannot be written or must not be replaced.
        IncompleteError: With one line for each part that is missing or unfinished, and each shard
            whose results differ or are gone.
    """
    places = [Output(as_address(each) or str(each)) for each in outputs]
    if len(places) > 1 and out is None:
        raise InputError(
            f"{places[0].text}: there are {len(places)} outputs: add --out with the place for all "
            "results"
        )
    target = places[0] if out is None else Output(as_address(out) or str(out))
    if table is not None:
        check_table(Path(table))
        check_replaced(Path(table), overwrite=overwrite)
    parts = [part for place in places for part in _read(place)]
    header = _common_header(parts)
    notes, problems = _check_parts(parts, int(header["part"][1]), target.text)
    chosen, differences = _choose(parts)
    problems += differences or _find_gone(chosen)
    if not problems and len(chosen) < header["shards"]:
        missing = header["shards"] - len(chosen)
        problems.append(f"{target.text}: {missing} of {header['shards']} shards are missing")
    if problems:
        raise IncompleteError(*problems, *notes)
    if table is not None and not header["settings"]["answers"].get("table"):
        raise InputError(
            f"{table}: the parts hold no areas: predict them with --table {table} as well"
        )
    records = [chosen[number][1] for number in sorted(chosen)]
    lock = FolderLock(target.folder, "merge")
    if target.address is None:
        lock.take()
    with lock if target.address is None else nullcontext():
        _move(chosen, target, overwrite=overwrite, progress=progress)
        manifest = Manifest(target, None)
        manifest.begin({**header, "part": None, "overwrite": False}, records, finished=1)
    found = collect(target, records)
    if table is not None and found.rows:
        about = header["settings"]["answers"]
        write_table(Path(table), found.rows, options=about, overwrite=overwrite)
    return MergeResult(len(records), found, tuple(notes))


_Chosen = Mapping[int, tuple[Output, Record]]
"""The record of each shard, and where its results are."""


def _read(place: Output) -> Iterator[_Part]:
    names = [name for name in place.manifests() if name != "manifest.jsonl"]
    if not names:
        raise InputError(
            f"{place.text}: holds no parts of a job: give what `pixelwise predict --shard` wrote"
        )
    for name in names:
        content = parse((place.read(name) or b"").decode("utf-8", "replace"))
        if content is None:
            raise InputError(f"{place.text}: {name} is damaged: predict that part again")
        yield _Part(place, name, content)


def _common_header(parts: Sequence[_Part]) -> dict[str, Any]:
    """Return the header of all parts, or raise InputError if they are not of one job."""
    first = parts[0].content.header
    for part in parts[1:]:
        header = part.content.header
        for key in ("images", "shards", "names", "settings"):
            if header[key] != first[key] or header["part"][1] != first["part"][1]:
                what = {"names": "the images", "settings": "the network or options"}.get(key, key)
                raise InputError(
                    f"{part.output.text}: {part.name} belongs to another job than {parts[0].name}, "
                    f"{what} differ: remove the manifests of one of the jobs"
                )
    return first


def _check_parts(parts: Sequence[_Part], count: int, where: str) -> tuple[list[str], list[str]]:
    """Return notes about parts that ran twice, and problems of missing and unfinished ones."""
    notes, problems = [], []
    by_number: dict[int, list[_Part]] = defaultdict(list)
    for part in parts:
        by_number[part.number].append(part)
    for number in range(1, count + 1):
        mine = by_number[number]
        name, again = f"part {number} of {count}", f"predict with --shard {number}/{count}"
        runs = sum(part.content.finished for part in mine)
        if not mine:
            problems.append(f"{where}: {name} is missing: {again}")
        elif not runs:
            problems.append(f"{mine[0].output.text}: {name} is unfinished: {again} to resume it")
        elif runs > 1:
            places = " and ".join(dict.fromkeys(part.output.text for part in mine))
            times = "twice" if runs == 2 else f"{runs} times"
            notes.append(f"{places}: {name} ran {times}; each of its results is kept once")
    return notes, problems


def _choose(parts: Sequence[_Part]) -> tuple[_Chosen, list[str]]:
    """Return a record for each shard, and problems of those with different results."""
    chosen: dict[int, tuple[Output, Record]] = {}
    problems = []
    for part in parts:
        for number, records in part.content.records.items():
            place, other = chosen.setdefault(number, (part.output, records[-1]))
            if other.digest != records[-1].digest:
                problems.append(
                    f"{part.output.text}: shard {number} ran twice with different results, here "
                    f"and in {place.text}: predict one of them again with --overwrite"
                )
    return chosen, problems


def _find_gone(chosen: _Chosen) -> list[str]:
    """Return problems of results that are no longer there, or have another size."""
    problems = []
    sizes = {place.text: place.sizes() for place, _ in chosen.values()}
    for place, record in chosen.values():
        files: dict[str, int] = read_details(place, record)["files"]
        gone = [name for name, size in files.items() if sizes[place.text].get(name) != size]
        if gone:
            problems.append(
                f"{place.text}: {len(gone)} results of shard {record.shard} are gone or changed, "
                f"such as {gone[0]}: predict its part again"
            )
    return problems


def _move(
    chosen: _Chosen, target: Output, *, overwrite: bool, progress: Callable[[int, int], None] | None
) -> None:
    """Copy the results that are elsewhere to the target."""
    total, done = sum(record.files for _, record in chosen.values()), 0
    for place, record in chosen.values():
        done += record.files
        if place.text != target.text:
            details = read_details(place, record)
            scratch = target.scratch("merge")
            try:
                for name in details["files"]:
                    place.copy(name, scratch / name)
                files = {name: scratch / name for name in details["files"]}
                target.publish(files, overwrite=overwrite)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            name = details_name(record.shard)
            target.write(name, place.read(name) or b"")
        if progress is not None:
            progress(done, total)
    target.remove_scratch("merge")
