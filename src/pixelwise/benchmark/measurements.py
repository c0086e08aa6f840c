"""Each runtime in processes of its own that take turns, beside PyTorch eager."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.benchmark.benchmark_worker import EAGER
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.inference.export_manifest import find_exports
from pixelwise.inference.runtimes import EXPORTED, TORCH, installed
from pixelwise.weights.bundle_header import bundle_digest

SMALLEST = 16  # pixels: what a generated scene needs
REFERENCE = "PyTorch eager"

Size = tuple[int, int]


@dataclass(frozen=True)
class Measurement:
    """One runtime at one size.

    milliseconds: the median of an image's latency, from an array in memory to labels; fastest: the
    least. memory: peak resident bytes of the process. equal: share (0..1) of pixels with eager's
    label. ratio: times as fast as eager, the faster of its two memory formats. other: milliseconds
    to decode a JPEG and write mask and overlay, one after the other.
    """

    runtime: str
    size: Size
    milliseconds: float
    fastest: float
    memory: int | None
    equal: float
    ratio: float
    other: float | None

    @property
    def images_per_second(self) -> float:
        return 1000 / self.milliseconds

    @property
    def other_share(self) -> float | None:
        """The part (0..1) of the way from file to files that is not the network."""
        return None if self.other is None else self.other / (self.other + self.milliseconds)

    def to_json(self) -> dict[str, Any]:
        return {
            "runtime": self.runtime,
            "size": list(self.size),
            "milliseconds": round(self.milliseconds, 3),
            "fastest milliseconds": round(self.fastest, 3),
            "images per second": round(self.images_per_second, 3),
            "times as fast as eager": round(self.ratio, 3),
            "labels equal to eager": self.equal,
            "peak bytes": self.memory,
            "not the network": None if self.other_share is None else round(self.other_share, 4),
        }


def benchmark(
    path: Path,
    *,
    sizes: Sequence[Size],
    rounds: int = 3,
    seconds: float = 3.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Measure the bundle at `path` by every runtime that is installed and it is exported for.

    sizes: rows and columns. rounds: processes of each runtime, which take turns; seconds: how long
    each repeats. progress: called with (done, total) after each process.

    Raises InputError for a file that is no bundle and sizes below SMALLEST; PixelwiseError where a
    process fails.
    """
    bundle_digest(path)
    for size in sizes:
        if min(size) < SMALLEST:
            raise InputError(f"size {size[0]}x{size[1]}: at least {SMALLEST} pixels a side")
    names = [*EAGER, *runtimes_for(path)]
    total, done = len(sizes) * rounds * len(names), 0
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="pixelwise-benchmark-") as folder:
        for size in sizes:
            answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in names:
                    request = {
                        "bundle": str(path),
                        "runtime": name,
                        "size": size,
                        "seconds": seconds,
                        "labels": str(Path(folder) / f"{name}.npy"),
                    }
                    answers[name].append(_run(request))
                    done += 1
                    if progress is not None:
                        progress(done, total)
            found += _measurements(size, answers, Path(folder))
    return found


def runtimes_for(path: Path) -> list[str]:
    """The runtimes that can run a bundle here: torch, and those of its exports."""
    beside = find_exports(path)
    return [TORCH] + [
        name
        for name, entry in EXPORTED.items()
        if entry.export in beside and installed(entry.package)
    ]


def _run(request: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "pixelwise.benchmark.benchmark_worker", json.dumps(request)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        raise PixelwiseError(f"{request['bundle']}: {request['runtime']} cannot run it ({last})")
    answer: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return answer


def _measurements(
    size: Size, answers: dict[str, list[dict[str, Any]]], folder: Path
) -> list[Measurement]:
    def median(name: str) -> float:
        return float(statistics.median(statistics.median(one["times"]) for one in answers[name]))

    eager = min(EAGER, key=median)
    reference = np.load(folder / f"{eager}.npy")
    found = []
    for name, given in answers.items():
        if name in EAGER and name != eager:
            continue
        labels = np.load(folder / f"{name}.npy")
        others = [one["other"] for one in given if one["other"] is not None]
        peaks = [one["peak"] for one in given if one["peak"] is not None]
        found.append(
            Measurement(
                runtime=REFERENCE if name == eager else name,
                size=size,
                milliseconds=median(name),
                fastest=min(min(one["times"]) for one in given),
                memory=max(peaks) if peaks else None,
                equal=float((labels == reference).mean()),
                ratio=median(eager) / median(name),
                other=statistics.median(others) if others else None,
            )
        )
    return found
