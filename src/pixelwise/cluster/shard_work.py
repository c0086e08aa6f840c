"""What a process does with a shard: bring the images, predict them, and publish the results."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pixelwise.cluster.inputs import Item, Shard
from pixelwise.cluster.manifest import Record
from pixelwise.cluster.output import STATE, TAR_MARK, Output
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.errors import InputError
from pixelwise.file_io import sha256
from pixelwise.inference import AnswerOptions, FolderResult, Predictor, predict_folder
from pixelwise.inference.output_names import result_names
from pixelwise.storage.addresses import StorageError, as_address, fetch, in_parallel


@dataclass(frozen=True)
class JobOptions:
    """What all processes of a job need to know.

    Args:
        out: The absolute path, or the address, of the results.
        answers: What is written besides masks.
        overlay: Whether overlays are written.
        overwrite: Whether files that prediction did not write may be replaced.
        tar: Whether the results of each shard are one tar file.
        owner: The name of the folder for work in progress.
    """

    out: str
    answers: AnswerOptions
    overlay: bool = True
    overwrite: bool = False
    tar: bool = False
    owner: str = "cluster"

    def files(self, shard: Shard) -> list[str]:
        """Return the names of all results of a shard."""
        if self.tar:
            return [f"{shard.names[0]}.tar" if shard.is_tar else f"shard-{shard.number:06d}.tar"]
        return [
            file
            for name in shard.names
            for file in result_names(name, overlay=self.overlay, suffixes=self.answers.suffixes)
        ]


@dataclass
class _Local:
    """The images of a shard on this machine.

    Args:
        paths: The images that can be read.
        names: The base names of their results.
        shown: What to call each path, by the path.
        faults: One line for each image that is missing.
    """

    paths: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, path: Path, name: str, shown: str) -> None:
        self.paths.append(path)
        self.names.append(name)
        self.shown[str(path)] = shown

    def rename(self, text: str) -> str:
        """Return a line about a path of this machine with what the user calls it."""
        for path, shown in self.shown.items():
            if path in text:
                return text.replace(path, shown)
        return text


class ShardWorker:
    """Predicts shards. Several may be in the works: only one of them is predicted at a time.

    Args:
        predictor: Predicts the masks.
        options: The job.
        predicting: The single thread in which the network was loaded and predicts; None for the
            thread that calls `run`. PyTorch starts helper threads for each thread that predicts,
            and if there are more of them than cores, OpenMP puts them to sleep sooner.
    """

    def __init__(
        self,
        predictor: Predictor,
        options: JobOptions,
        predicting: ThreadPoolExecutor | None = None,
    ) -> None:
        self.predictor, self.options = predictor, options
        self.output = Output(options.out)
        self._predicting = predicting

    def run(self, shard: Shard) -> Record:
        """Predict a shard and publish its results.

        Raises:
            InputError: If a result would replace a file that prediction did not write.
            StorageError: If images or results cannot be transferred.
            PredictionError: If the disk is full.
        """
        scratch = self.output.scratch(self.options.owner)
        try:
            local = _unpack(shard, scratch) if shard.is_tar else _bring(shard, scratch)
            if self._predicting is None:
                result = self._predict(local, scratch)
            else:
                result = self._predicting.submit(self._predict, local, scratch).result()
            return self._publish(shard, local, result, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _predict(self, local: _Local, scratch: Path) -> FolderResult:
        answers = self.options.answers
        if answers.table is not None:
            answers = replace(answers, table=scratch / "table.json")
        if not local.paths:
            return FolderResult(0, 0, (), False)
        try:
            return predict_folder(
                self.predictor,
                local.paths,
                scratch / "out",
                names=local.names,
                overlay=self.options.overlay,
                answers=answers,
            )
        except InputError as error:  # raised if all images failed
            named = [line.startswith(tuple(local.shown)) for line in error.problems]
            if not all(named) or len(named) < len(local.paths):
                raise
            return FolderResult(0, 0, error.problems, False)

    def _publish(self, shard: Shard, local: _Local, result: FolderResult, scratch: Path) -> Record:
        files = {path.name: path for path in (scratch / "out").glob("[!.]*")}
        if self.options.tar:
            (name,) = self.options.files(shard)
            keys = dict(zip(local.names, map(str, local.shown.values()), strict=True))
            keys = {n: s.partition("!")[2] if shard.is_tar else n for n, s in keys.items()}
            files = {name: _pack(files, keys, self._suffixes(), scratch / name)}
        faults = [*local.faults, *map(local.rename, result.faults)]
        sizes = {file: path.stat().st_size for file, path in files.items()}
        details = {
            "files": sizes,
            "faults": faults,
            "flagged": [local.shown[path] for path in result.flagged],
            "rows": [{**row, "image": local.shown[row["image"]]} for row in result.rows],
        }
        digest = hashlib.sha256()
        for file in sorted(files):
            digest.update(f"{file} {sha256(files[file])}\n".encode())
        self.output.publish(files, overwrite=self.options.overwrite)
        self.output.write(details_name(shard.number), json.dumps(details).encode())
        return Record(
            shard.number,
            shard.key,
            result.written + len(faults),
            len(files),
            sum(sizes.values()),
            digest.hexdigest()[:32],
            len(faults),
        )

    def _suffixes(self) -> Sequence[str]:
        return result_names(
            "", overlay=self.options.overlay, suffixes=self.options.answers.suffixes
        )


def details_name(shard: int) -> str:
    """Return the name of the file with the results, rows and faults of a shard."""
    return f"parts/{shard:06d}.json"


def _bring(shard: Shard, scratch: Path) -> _Local:
    """Make the images of a shard available on this machine."""

    def bring(item: Item) -> Path | str:
        if as_address(item.where) is None:
            path = Path(item.where)
            return path if path.exists() else f"{item.shown}: does not exist: check the path"
        path = scratch / "in" / hashlib.sha256(item.where.encode()).hexdigest()[:16]
        path.mkdir(parents=True)
        path = path / item.where.rpartition("/")[2]
        try:
            fetch(item.where, path, size=int(item.stamp.partition(" ")[0]))
        except InputError as error:
            return str(error)
        return path

    local = _Local()
    for (item, name), found in zip(shard, in_parallel(bring, shard.items), strict=True):
        if isinstance(found, str):
            local.faults.append(found)
        else:
            local.add(found, name, item.shown)
    if not local.paths and len(shard.items) > 1:
        raise StorageError(
            f"{shard.items[0].shown}: this machine sees none of the {len(shard.items)} images of "
            "the shard: give images on shared storage, or an address"
        )
    return local


def _unpack(shard: Shard, scratch: Path) -> _Local:
    """Extract the images of a WebDataset shard: of each key the file with an image suffix."""
    (item,) = shard.items
    source = Path(item.where)
    if as_address(item.where) is not None:
        source = scratch / "input.tar"
        fetch(item.where, source, size=int(item.stamp.partition(" ")[0]))
    local = _Local()
    seen: set[str] = set()
    others: dict[str, str] = {}  # a file that looks like an image, by key
    try:
        with tarfile.open(source) as archive:
            for number, member in enumerate(archive):
                folder, slash, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                key = f"{folder}{slash}{stem}"
                if not member.isreg():
                    continue
                if f".{suffix.lower()}" not in IMAGE_SUFFIXES:
                    if stem and Path(suffix.lower()).suffix in IMAGE_SUFFIXES:
                        others.setdefault(key, base)
                    continue
                shown = f"{item.shown}!{key}"
                if key in seen:
                    local.faults.append(
                        f"{shown}: has several images in the tar file: keep one for each key"
                    )
                    continue
                seen.add(key)
                path = scratch / "in" / f"{number:08d}.{suffix.lower()}"
                path.parent.mkdir(exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                with path.open("wb") as stream:
                    shutil.copyfileobj(content, stream)
                local.add(path, path.stem, shown)
    except (tarfile.TarError, OSError, EOFError) as error:
        local.faults.append(f"{item.shown}: cannot be read to its end ({error}): restore the file")
    local.faults += [
        f"{item.shown}!{key}: its only image is {base}, but a key ends at the first dot of a name: "
        "rename the file, such as with _ instead of the other dots"
        for key, base in others.items()
        if key not in seen
    ]
    if not local.paths and not local.faults:
        local.faults.append(f"{item.shown}: holds no images: give a tar file of WebDataset")
    return local


def _pack(
    files: Mapping[str, Path], keys: Mapping[str, str], suffixes: Sequence[str], target: Path
) -> Path:
    """Write results into a WebDataset shard: KEY.png, KEY.overlay.png, ... for each image.

    Equal results give equal bytes.
    """
    with tarfile.open(
        target, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": TAR_MARK.decode()}
    ) as archive:
        for name, key in keys.items():
            for suffix in suffixes:
                path = files.get(name + suffix)
                if path is not None:
                    member = tarfile.TarInfo(key + suffix.replace("_", ".", 1))
                    data = path.read_bytes()
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return target


def read_details(output: Output, record: Record) -> dict[str, Any]:
    """Return the files, rows, faults and flagged images of a complete shard.

    Raises:
        InputError: If somebody has removed them.
    """
    name = details_name(record.shard)
    data = output.read(name)
    if data is None:
        raise InputError(f"{output.text}/{STATE}/{name}: is gone: predict with --overwrite")
    details: dict[str, Any] = json.loads(data)
    return details
