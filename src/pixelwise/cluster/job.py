"""A job over many images: divided into shards, resumed from its manifest, and summarized."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pixelwise
from pixelwise.cluster.inputs import Shard, divide, find_items
from pixelwise.cluster.manifest import Content, Manifest, Record
from pixelwise.cluster.output import Output
from pixelwise.cluster.shard_work import JobOptions, ShardWorker, read_details
from pixelwise.errors import InputError
from pixelwise.folder_lock import FolderLock
from pixelwise.inference import AnswerOptions, FolderResult, InferenceOptions, Predictor
from pixelwise.inference.batch.predict_folder import PredictionError, answer_settings
from pixelwise.inference.output_names import typical_size
from pixelwise.inference.runtimes import installed
from pixelwise.inference.tables import check_replaced, write_table
from pixelwise.interrupts import Interrupts, StoppedError
from pixelwise.process_settings import cores
from pixelwise.storage.addresses import StorageError, as_address, check_addresses

ProgressCallback = Callable[[int, int], None]
SHARD_ATTEMPTS = 3
"""How often a shard is tried whose images or results cannot be transferred."""


class Engine(Protocol):
    """What predicts the shards."""

    threads: int
    """The threads of the network. PyTorch adds in an order that depends on it."""

    def start(self, options: JobOptions, before: Mapping[str, Any] | None) -> dict[str, Any]:
        """Load the network, and return everything else that decides its results.

        Args:
            options: The job.
            before: The header of the manifest if the job ran before: "auto" stands for its runtime.
        """

    def run(
        self, shards: Sequence[Shard], stop: Callable[[], bool]
    ) -> Generator[tuple[Shard, Record | StorageError]]:
        """Yield each shard when it is complete, or when it could not be transferred."""

    def close(self) -> None:
        """End all processes of the engine."""


@dataclass(frozen=True)
class Network:
    """The network of a job.

    Args:
        path: A bundle or an export.
        options: How it is run.
        image_size: Usual height and width of the images.
    """

    path: Path
    options: InferenceOptions
    image_size: tuple[int, int] | None = None

    def load(self, runtime: str | None) -> Predictor:
        """Load it, with a certain runtime if the options leave that open."""
        options = self.options
        if runtime is not None and options.runtime == "auto" and options.device is None:
            options = replace(options, runtime=runtime)
        return Predictor.from_options(self.path, options, image_size=self.image_size)


class LocalEngine:
    """Predicts shards in this process, one after another.

    Args:
        network: The network.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.threads = predict_threads()
        self._worker: ShardWorker | None = None

    def start(self, options: JobOptions, before: Mapping[str, Any] | None) -> dict[str, Any]:
        predictor = self.network.load(None if before is None else before["settings"]["runtime"])
        self._worker = ShardWorker(predictor, options)
        return settings_of(predictor, options)

    def run(
        self, shards: Sequence[Shard], stop: Callable[[], bool]
    ) -> Generator[tuple[Shard, Record | StorageError]]:
        assert self._worker is not None
        for shard in shards:
            if stop():
                return
            try:
                yield shard, self._worker.run(shard)
            except StorageError as error:
                yield shard, error

    def close(self) -> None:
        pass


def predict_threads() -> int:
    """Return the number of threads that `predict` uses on this machine."""
    if not installed("torch"):
        return cores()
    import torch

    return torch.get_num_threads()


def settings_of(predictor: Predictor, options: JobOptions) -> dict[str, Any]:
    """Return everything besides the images that decides the results, as plain JSON."""
    answers = options.answers
    answers.check_classes(predictor.classes)
    settings = {
        "pixelwise": pixelwise.__version__,
        "overlay": options.overlay,
        "tar": options.tar,
        "answers": {},
        **predictor.to_json(),
    }
    settings |= answer_settings(predictor, answers)
    plain: dict[str, Any] = json.loads(json.dumps(settings))  # as the manifest holds it
    return plain


def predict_shards(
    bundle: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    cluster: str | None = None,
    part: tuple[int, int] | None = None,
    options: InferenceOptions | None = None,
    answers: AnswerOptions | None = None,
    overlay: bool = True,
    overwrite: bool = False,
    tar: bool = False,
    shard_size: int | None = None,
    progress: ProgressCallback | None = None,
) -> FolderResult:
    """Predict images in shards; for the other arguments and errors see `pixelwise.predict_shards`.

    Args:
        inputs: See `find_items`.
        part: (number from 1, count): predict only this part, in this process.
        progress: Called with the number of finished images, or tar files, and of all.

    Raises:
        PredictionError: If shards could not be finished.
    """
    answers = answers or AnswerOptions()
    text = as_address(out) or str(Path(out).absolute())
    check_addresses([address for each in (out, *inputs) if (address := as_address(each))])
    items = find_items(inputs)
    shards = divide(
        items,
        text,
        overlay=overlay,
        suffixes=answers.suffixes,
        size=shard_size,
        parts=part[1] if part else 1,
    )
    owner = "cluster" if part is None else f"{part[0]}-of-{part[1]}"
    is_tar = shards[0].is_tar
    job_options = JobOptions(text, answers, overlay, overwrite, tar or is_tar, owner)
    local = [Path(i.where) for i in items[:1000] if as_address(i.where) is None]
    size = None if is_tar else typical_size(local)
    network = Network(Path(bundle), options or InferenceOptions(), size)
    engine: Engine = LocalEngine(network)
    if cluster is not None:
        from pixelwise.cluster.ray_engine import RayEngine

        engine = RayEngine(network, cluster)
    return _Job(shards, job_options, part).run(engine, progress)


class _Job:
    """A job, or a part of one.

    Args:
        shards: All shards of the job.
        options: What all processes need to know.
        part: (number from 1, count) of a part.
    """

    def __init__(
        self, shards: Sequence[Shard], options: JobOptions, part: tuple[int, int] | None
    ) -> None:
        self.all, self.options, self.part = shards, options, part
        self.own = list(shards) if part is None else list(shards[part[0] - 1 :: part[1]])
        self.output = Output(options.out)
        self.manifest = Manifest(self.output, part)
        self.outdated, self.starts_over = False, options.overwrite
        self.replaced = 0

    def run(self, engine: Engine, progress: ProgressCallback | None) -> FolderResult:
        answers = self.options.answers
        if answers.table is not None and self.part is None:
            check_replaced(answers.table, overwrite=self.options.overwrite)
        with self._lock(), Interrupts() as interrupts, closing(engine):
            self.output.remove_scratch(self.options.owner)
            before = self.manifest.read()
            if before is not None and before.header["overwrite"] and not before.finished:
                self.options = replace(self.options, overwrite=True)
            settings = engine.start(self.options, None if before is None else before.header)
            kept = self._kept(before, settings)
            remaining = [shard for shard in self.own if shard.number not in kept]
            existing = self.output.sizes()
            names = [n for s in remaining for n in self.options.files(s) if n in existing]
            if not self.options.overwrite:
                self.output.check(names)
            if before is None:
                firsts = {f"{name}.png" for shard in remaining for name in shard.names}
                self.replaced = len(firsts.intersection(names))
            header = {
                "overwrite": self.starts_over,
                "threads": engine.threads,
                "settings": settings,
                "shards": len(self.all),
                "images": sum(len(shard.items) for shard in self.all),
                "names": _digest(name for shard in self.all for name in shard.names),
                "part": self.part,
            }
            finished = 0 if before is None or remaining else before.finished
            self.manifest.begin(header, list(kept.values()), finished=finished)
            try:
                done, faults = self._execute(engine, remaining, kept, interrupts, progress)
            finally:
                self.manifest.flush()
                self.output.remove_scratch(self.options.owner)
        if interrupts.requested is not None and len(done) + len(faults) < len(remaining):
            raise StoppedError(
                f"{self.output.text}: stopped with {len(kept) + len(done)} of {len(self.own)} "
                "shards finished: the same command without --overwrite resumes from there",
                signal_number=interrupts.requested,
            )
        if faults:
            raise PredictionError(
                f"{self.output.text}: {len(faults)} of {len(self.own)} shards could not be "
                "finished: the same command without --overwrite resumes from there",
                *faults,
            )
        self.manifest.finish()
        return self._summarize(kept, done, settings)

    def _lock(self) -> AbstractContextManager[object]:
        """Lock the local folder of the job, or of the part, against another process."""
        if self.output.address is not None:
            return nullcontext()
        if self.part is None:
            lock = FolderLock(self.output.folder, "predict")
        else:
            lock = FolderLock(self.output.state_folder / "locks" / self.options.owner, "predict")
        lock.take()
        return lock

    def _kept(self, before: Content | None, settings: dict[str, Any]) -> dict[int, Record]:
        """Return the records of shards that are complete, unchanged, and without faults."""
        if before is None or self.starts_over:
            return {}
        if before.header["settings"] != settings:
            self.outdated = True
            return {}
        sizes = self.output.sizes()
        kept = {}
        for shard in self.own:
            records = before.records.get(shard.number)
            names = self.options.files(shard)
            if not records or records[-1].key != shard.key or records[-1].faults:
                continue
            present = [sizes[name] for name in names if name in sizes]
            if (len(present), sum(present)) == (records[-1].files, records[-1].size):
                kept[shard.number] = records[-1]
        return kept

    def _execute(
        self,
        engine: Engine,
        remaining: Sequence[Shard],
        kept: dict[int, Record],
        interrupts: Interrupts,
        progress: ProgressCallback | None,
    ) -> tuple[dict[int, Record], list[str]]:
        """Predict shards; return the records of those that are complete, and faults of others."""
        done: dict[int, Record] = {}
        faults: dict[int, str] = {}
        total = sum(len(shard.items) for shard in self.own)
        finished = total - sum(len(shard.items) for shard in remaining)
        shards = list(remaining)
        for _ in range(SHARD_ATTEMPTS):
            faults.clear()
            running = engine.run(shards, lambda: interrupts.requested is not None)
            with closing(running) as results:
                for shard, result in results:
                    if isinstance(result, Record):
                        self.manifest.add(result)
                        done[shard.number] = result
                        finished += len(shard.items)
                    else:
                        faults[shard.number] = str(result)
                        if len(faults) >= SHARD_ATTEMPTS and not done:
                            return done, list(faults.values())  # the store is down
                    if progress is not None:
                        progress(finished, total)
            shards = [shard for shard in shards if shard.number in faults]
            if not shards or interrupts.requested is not None:
                break
        return done, list(faults.values())

    def _summarize(
        self, kept: dict[int, Record], done: dict[int, Record], settings: dict[str, Any]
    ) -> FolderResult:
        records = kept | done
        details = collect(self.output, [records[number] for number in sorted(records)])
        answers = self.options.answers
        rows: tuple[dict[str, Any], ...] = ()
        if answers.table is not None and self.part is None and details.rows:
            rows = details.rows
            write_table(
                answers.table, rows, options=settings["answers"], overwrite=self.options.overwrite
            )
        written, old = (
            sum(record.images - record.faults for record in each.values()) for each in (done, kept)
        )
        if details.faults and not written and not old:
            raise InputError(*details.faults)
        return replace(
            details,
            written=written,
            kept=old,
            outdated=self.outdated,
            replaced=self.replaced,
            rows=rows,
        )


def _digest(names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def collect(output: Output, records: Sequence[Record]) -> FolderResult:
    """Return the rows, faults and flagged images of complete shards, in their order."""
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    flagged: list[str] = []
    for record in records:
        details = read_details(output, record)
        rows += details["rows"]
        faults += details["faults"]
        flagged += details["flagged"]
    written = sum(record.images - record.faults for record in records)
    return FolderResult(written, 0, tuple(faults), False, rows=tuple(rows), flagged=tuple(flagged))
