"""Shards on a Ray cluster: actors with the network, one for each GPU or for a few cores of a node.

All actors use as many threads as `predict` would on the machine of the driver, because PyTorch adds
in an order that depends on it: so the results are the same, bit for bit. A node has as many actors
as its cores allow, and at least one. An actor works on three shards at a time: while one is
predicted, the images of the next are brought, and the results of the last are published. The
shards of a lost actor or node go to others. Ray's own retries are off, since an actor has state.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pixelwise.cluster.inputs import Shard
from pixelwise.cluster.job import Network, predict_threads, settings_of
from pixelwise.cluster.manifest import Record
from pixelwise.cluster.output import STATE, Output
from pixelwise.cluster.shard_work import JobOptions, ShardWorker
from pixelwise.errors import InputError, PixelwiseError, needs_package
from pixelwise.file_io import atomic, is_file
from pixelwise.inference.batch.predict_folder import PredictionError
from pixelwise.inference.export_manifest import find_exports, is_export
from pixelwise.process_settings import cores, limit_omp_spin, tune_allocator
from pixelwise.storage.addresses import StorageError

IN_FLIGHT = 3
"""Shards that an actor has at a time."""
MOST_LOSSES = 5
"""How many workers may be lost with the same shard: it may be what ends them."""
WAIT_SECONDS = 1.0
CONNECT_SECONDS = 10.0
START_SECONDS = 600.0
"""How long to wait for the first actor, or for a new one after all were lost."""
FAILING_SECONDS = 60.0
"""How long actors may end before the first of them has started; a lost node is noticed by then."""

Files = dict[str, bytes]


@dataclass
class _Actor:
    """An actor, as the driver sees it: its shards in flight, by their references."""

    handle: Any
    node: str
    starting: Any
    ready: bool = False
    running: dict[Any, Shard] = field(default_factory=dict)


class Worker:
    """The actor: a network and the shards that it works on.

    Args:
        files: The files of the network, by relative name.
        network: The network; its path is relative to the files.
        options: The job.
        runtime: The runtime that "auto" stands for, if that is known.
        threads: The threads of the network.
        token: A file that the driver wrote beside the results, if they are in a folder.
    """

    def __init__(
        self,
        files: Files,
        network: Network,
        options: JobOptions,
        runtime: str | None,
        threads: int,
        token: str | None,
    ) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before PyTorch is imported
        limit_omp_spin()
        tune_allocator()
        self.files, self.network, self.options = files, network, options
        self.runtime, self.token = runtime, token
        self.folder = Path(tempfile.mkdtemp(prefix="pixelwise-network-"))
        self.worker: ShardWorker | None = None
        self.thread = ThreadPoolExecutor(1)

    def start(self) -> dict[str, Any] | PixelwiseError:
        """Load the network; return what decides its results, or the error."""
        out = Output(self.options.out)
        if self.token is not None and not (out.state_folder / self.token).exists():
            return InputError(
                f"{out.text}: the node {os.uname().nodename} sees another folder there: write to "
                "shared storage, or to an address such as s3://bucket/folder"
            )
        try:
            for name, content in self.files.items():
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            network = replace(self.network, path=self.folder / self.network.path)
            predictor = self.thread.submit(network.load, self.runtime).result()
            predictor.path = str(self.network.path)  # for messages
        except PixelwiseError as error:
            return error
        self.files = {}
        self.worker = ShardWorker(predictor, self.options, self.thread)
        return settings_of(predictor, self.options)

    def run(self, shard: Shard) -> Record | PixelwiseError:
        """Predict a shard; an error is returned, since Ray would add its traceback."""
        assert self.worker is not None
        try:
            return self.worker.run(shard)
        except PixelwiseError as error:
            return error


class RayEngine:
    """Predicts shards on a Ray cluster.

    Args:
        network: The network.
        address: The address of the cluster, or "local" to start one on this machine.

    Raises:
        InputError: If the cluster cannot be reached.
        MissingPackageError: If Ray is not installed.
    """

    def __init__(self, network: Network, address: str) -> None:
        self.ray = _import_ray(address)
        self.network, self.address = network, address
        self.threads = predict_threads()
        self.actors: list[_Actor] = []
        self.settings: dict[str, Any] | None = None
        self._options: JobOptions | None = None
        self._runtime: str | None = None
        self._files: Any = None
        self._token: Path | None = None
        self._failing_since: float | None = None

    def start(self, options: JobOptions, before: Mapping[str, Any] | None) -> dict[str, Any]:
        if before is not None:
            self.threads = before["threads"]
            self._runtime = before["settings"]["runtime"]
        files = _network_files(self.network.path)
        self.network = replace(self.network, path=Path(self.network.path.name))
        _connect(self.ray, self.address)
        self._options = options
        self._files = self.ray.put(files)
        out = Output(options.out)
        if out.address is None:
            out.state_folder.mkdir(parents=True, exist_ok=True)
            self._token = out.state_folder / f"job-{os.getpid()}-{time.time_ns()}"
            with atomic(self._token) as side:
                side.write_text(f"{STATE}\n", encoding="utf-8")
        deadline = time.monotonic() + START_SECONDS
        while self.settings is None:
            self._add_actors(at_most=1)
            self._collect_started()
            if time.monotonic() > deadline:
                raise self._nobody_works()
        self._runtime = self.settings["runtime"]
        return self.settings

    def close(self) -> None:
        if self._token is not None:
            self._token.unlink(missing_ok=True)
        self.ray.shutdown()

    def run(
        self, shards: Sequence[Shard], stop: Callable[[], bool]
    ) -> Generator[tuple[Shard, Record | StorageError]]:
        pending, losses = deque(shards), Counter[int]()
        worked = time.monotonic()
        while pending or any(actor.running for actor in self.actors):
            if stop():
                return
            self._add_actors()
            self._collect_started()
            self._assign(pending)
            running = {ref: actor for actor in self.actors for ref in actor.running}
            if running:
                worked = time.monotonic()
            elif time.monotonic() - worked > START_SECONDS:
                raise self._nobody_works()
            waiting = [actor.starting for actor in self.actors if not actor.ready]
            if not running and not waiting:
                time.sleep(WAIT_SECONDS)
                continue
            ready, _ = self.ray.wait([*running, *waiting], num_returns=1, timeout=WAIT_SECONDS)
            for reference in ready:
                if reference not in running or reference not in running[reference].running:
                    continue
                actor = running[reference]
                shard = actor.running[reference]
                try:
                    result = self.ray.get(reference)
                except self.ray.exceptions.RayError as error:
                    self._lose(actor, pending, losses, error)
                    continue
                del actor.running[reference]
                if isinstance(result, PixelwiseError) and not isinstance(result, StorageError):
                    raise result
                yield shard, result

    def _assign(self, pending: deque[Shard]) -> None:
        """Give shards to the actors, one to each in turn."""
        for room in range(1, IN_FLIGHT + 1):
            for actor in self.actors:
                if actor.ready and pending and len(actor.running) < room:
                    shard = pending.popleft()
                    actor.running[actor.handle.run.remote(shard)] = shard

    def _lose(
        self, actor: _Actor, pending: deque[Shard], losses: Counter[int], error: Exception
    ) -> None:
        """Put the shards of a lost actor back; raise if one of them was lost too often."""
        if isinstance(error, self.ray.exceptions.RayTaskError):
            raise error  # a fault of the program, which another worker has as well
        self.actors.remove(actor)
        self.ray.kill(actor.handle)
        for shard in reversed(actor.running.values()):
            losses[shard.number] += 1
            if losses[shard.number] >= MOST_LOSSES:
                raise PredictionError(
                    f"{shard.items[0].shown}: {MOST_LOSSES} workers were lost with its shard of "
                    f"{len(shard.items)} images ({_reason(error)}): give smaller shards, or nodes "
                    "with more memory; the same command resumes from there"
                )
            pending.appendleft(shard)
        actor.running.clear()

    def _add_actors(self, at_most: int | None = None) -> None:
        """Start actors on nodes that have none."""
        used = Counter(actor.node for actor in self.actors)
        for node in self.ray.nodes():
            resources = node["Resources"]
            cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
            if not node["Alive"] or cpus < 1:
                continue
            wanted = gpus or max(1, cpus // self.threads)
            for _ in range(wanted - used[node["NodeID"]]):
                if at_most is not None and len(self.actors) >= at_most:
                    return
                share = min(self.threads, cpus // wanted)
                self.actors.append(self._start_actor(node["NodeID"], share, gpus))

    def _start_actor(self, node: str, cpus: int, gpus: int) -> _Actor:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        kind = self.ray.remote(Worker).options(
            num_cpus=cpus,
            num_gpus=1 if gpus else 0,
            max_concurrency=IN_FLIGHT,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        token = None if self._token is None else self._token.name
        handle = kind.remote(
            self._files, self.network, self._options, self._runtime, self.threads, token
        )
        return _Actor(handle, node, handle.start.remote())

    def _collect_started(self) -> None:
        """Note which actors have loaded the network, and check that it is the same everywhere."""
        failure: Exception | None = None
        for actor in [actor for actor in self.actors if not actor.ready]:
            wait = WAIT_SECONDS if self.settings is None else 0
            if not self.ray.wait([actor.starting], timeout=wait)[0]:
                continue
            try:
                settings = self.ray.get(actor.starting)
            except self.ray.exceptions.RayTaskError as error:
                raise _cannot_start(actor.node, error) from error
            except self.ray.exceptions.RayError as error:
                self.actors.remove(actor)
                if "creation task" in str(error) and "ImportError" in str(error):
                    raise _cannot_start(actor.node, error) from error
                failure = error
                continue
            if isinstance(settings, PixelwiseError):
                raise settings
            if self.settings is not None and settings != self.settings:
                names = [n for n in settings if settings[n] != self.settings.get(n)]
                values = ", ".join(f"{n} {settings[n]}, not {self.settings.get(n)}" for n in names)
                raise InputError(
                    f"node {actor.node[:8]}: differs from the other nodes ({values}): install the "
                    "same version of pixelwise and of its runtime on all nodes"
                )
            self.settings, actor.ready = settings, True
        if failure is not None:
            self._wait_after_failure(failure)

    def _wait_after_failure(self, error: Exception) -> None:
        """Wait before another actor is started; raise if none starts at all."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if self.settings is None and now - self._failing_since > FAILING_SECONDS:
            raise PredictionError(
                f"cluster {self.address}: its workers end before they start ({_reason(error)}): if "
                "Ray uses a token only here or only there, set RAY_AUTH_MODE alike in both, "
                "disabled or token; otherwise see the logs of Ray"
            ) from error
        time.sleep(WAIT_SECONDS)

    def _nobody_works(self) -> PredictionError:
        return PredictionError(
            f"cluster {self.address}: no node has had free cores for {START_SECONDS:.0f} seconds: "
            "add nodes, or end other jobs; the same command resumes from there"
        )


def _import_ray(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:  # it reads them on import
        if address == "local":  # Ray would write its token into the home folder
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        if "RAY_AUTH_TOKEN" in os.environ or is_file(Path("~/.ray/auth_token").expanduser()):
            os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # CPU nodes keep their GPUs
    with needs_package("--cluster needs Ray, which is not installed: pip install 'pixelwise[ray]'"):
        import ray
    return ray


def _connect(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == "local":
        os.environ.setdefault("RAY_worker_niceness", "0")  # as `predict` has; the default is 15
        options |= {"num_cpus": cores(), "include_dashboard": False}
    try:
        _check_reachable(address)
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"cluster {address}: cannot be reached ({_reason(error)}): give the address of a "
            "running Ray cluster, such as 10.0.0.1:6379, or local"
        ) from error


def _check_reachable(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT: Ray itself would try for minutes."""
    match = re.fullmatch(r"\[?([^\]/]+)\]?:(\d{1,5})", address)
    if match is not None:
        socket.create_connection((match[1], int(match[2])), timeout=CONNECT_SECONDS).close()


def _network_files(path: Path) -> Files:
    """Return the files of a bundle with its exports, or of an export, by relative name."""
    folders = [path] if is_export(path) else list(find_exports(path).values())
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    if path.is_file():
        files.append(path)
    if not files:
        raise InputError(f"{path}: does not exist: give a bundle (.safetensors) or an export")
    return {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in files}


def _cannot_start(node: str, error: Exception) -> InputError:
    return InputError(
        f"node {node[:8]}: cannot load the network ({_reason(error)}): install the same version of "
        "pixelwise on all nodes"
    )


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".")[:300] if lines else type(error).__name__
