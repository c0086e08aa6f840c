"""Measure runtimes and eager PyTorch, each in its own processes, which take turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.benchmark.benchmark_worker import EAGER
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.inference.export_manifest import find_exports
from pixelwise.inference.runtimes import TORCH, available
from pixelwise.inference.tiling.tiled_model import ProgressCounter
from pixelwise.weights.bundle_header import bundle_digest
from pixelwise.weights.published.catalog import find_bundle

MIN_SIDE = 16  # pixels; generated scenes cannot be smaller
REFERENCE = "PyTorch eager"

Size = tuple[int, int]


@dataclass(frozen=True)
class Measurement:
    """The speed of one runtime at one image size.

    Attributes:
        runtime: Name of the runtime.
        size: Height and width of the image.
        milliseconds: Median latency of an image, from an array in memory to labels.
        fastest: Shortest latency, in milliseconds.
        memory: Peak resident memory of the process in bytes, None if unknown.
        equal: Fraction of pixels with the label of eager PyTorch, in 0..1.
        speedup: Latency of eager PyTorch, in the faster of its two memory formats, over the
            runtime's.
        file_milliseconds: Median time to decode a JPEG and write its mask and overlay.
    """

    runtime: str
    size: Size
    milliseconds: float
    fastest: float
    memory: int | None
    equal: float
    speedup: float
    file_milliseconds: float | None

    @property
    def images_per_second(self) -> float:
        return 1000 / self.milliseconds

    @property
    def file_fraction(self) -> float | None:
        """The fraction of the time from file to files that is not the network, in 0..1."""
        files = self.file_milliseconds
        return None if files is None else files / (files + self.milliseconds)

    def to_json(self) -> dict[str, Any]:
        fraction = self.file_fraction
        return {
            "runtime": self.runtime,
            "size": list(self.size),
            "milliseconds": round(self.milliseconds, 3),
            "fastest milliseconds": round(self.fastest, 3),
            "images per second": round(self.images_per_second, 3),
            "times as fast as eager": round(self.speedup, 3),
            "labels equal to eager": self.equal,
            "peak bytes": self.memory,
            "not the network": None if fraction is None else round(fraction, 4),
        }


def benchmark(
    path: Path,
    *,
    sizes: Sequence[Size],
    rounds: int = 3,
    seconds: float = 3.0,
    progress: ProgressCallback | None = None,
    failed: dict[str, str] | None = None,
) -> list[Measurement]:
    """Measure a bundle with every runtime that is installed and that it is exported for.

    Args:
        path: The bundle.
        sizes: Image sizes (height, width), at least MIN_SIDE pixels.
        rounds: Number of processes per runtime and size. The runtimes take turns.
        seconds: How long each process repeats the measurement.
        progress: Called with (done, total) after each process.
        failed: Filled with the runtimes that cannot run the bundle, and why, which are then left
            out. Without it, the first failure ends the measurement.

    Returns:
        The measurements of each size: eager PyTorch first, then the runtimes.

    Raises:
        InputError: If the file is not a bundle or a size is too small.
        PixelwiseError: If a process of eager PyTorch fails, or any process without `failed`.
    """
    path = find_bundle(path)
    bundle_digest(path)
    for height, width in sizes:
        if min(height, width) < MIN_SIDE:
            raise InputError(f"size {height}x{width}: must be at least {MIN_SIDE} pixels per side")
    names = [*EAGER, *available_runtimes(path)]
    counter = ProgressCounter(len(sizes) * rounds * len(names), progress)
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="pixelwise-benchmark-") as folder:
        for size in sizes:
            answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in list(answers):
                    request = {
                        "bundle": str(path),
                        "runtime": name,
                        "size": size,
                        "seconds": seconds,
                        "labels": str(Path(folder) / f"{name}.npy"),
                    }
                    try:
                        answers[name].append(_run_worker(request))
                    except PixelwiseError as error:
                        if failed is None or name in EAGER:
                            raise
                        failed[name] = str(error)
                        names.remove(name)
                        del answers[name]
                    counter.count()
            measurements += _summarize(size, answers, Path(folder))
    return measurements


def available_runtimes(path: Path) -> list[str]:
    """Return the runtimes that can execute a bundle on this machine: torch, then its exports'."""
    return [TORCH, *available(find_exports(path))]


def _run_worker(request: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "pixelwise.benchmark.benchmark_worker", json.dumps(request)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        fallback = [f"exit code {process.returncode}"]
        reason = (process.stderr.strip().splitlines() or fallback)[-1]
        raise PixelwiseError(f"{request['bundle']}: {request['runtime']} cannot run it ({reason})")
    answer: dict[str, Any] = json.loads(process.stdout.strip().splitlines()[-1])
    return answer


def _summarize(
    size: Size, answers: dict[str, list[dict[str, Any]]], folder: Path
) -> list[Measurement]:
    """Combine the answers of all processes at one size."""

    latencies = {
        name: float(statistics.median(statistics.median(answer["times"]) for answer in answered))
        for name, answered in answers.items()
    }
    eager = min(EAGER, key=lambda name: latencies[name])
    eager_labels = np.load(folder / f"{eager}.npy")
    measurements = []
    for name, answered in answers.items():
        if name in EAGER and name != eager:
            continue
        labels = np.load(folder / f"{name}.npy")
        # These are None in every process of a runtime or in none.
        file_times, peaks = ([answer[key] for answer in answered] for key in ("file_time", "peak"))
        measurements.append(
            Measurement(
                runtime=REFERENCE if name == eager else name,
                size=size,
                milliseconds=latencies[name],
                fastest=min(min(answer["times"]) for answer in answered),
                memory=None if None in peaks else max(peaks),
                equal=float((labels == eager_labels).mean()),
                speedup=latencies[eager] / latencies[name],
                file_milliseconds=None if None in file_times else statistics.median(file_times),
            )
        )
    return measurements
