"""Measure what prediction reaches on a processor with AVX2 only, and how far it is from the limit.

    python benchmarks/avx2.py [--bundle BUNDLE] [--rounds N] [--seconds S] [--threads N]

DeepLabV3+ on MobileNetV2 at 360x480, float32. On processors with more than AVX2, PyTorch and
OpenVINO are limited to it by environment variables; a few of OpenVINO's other kernels (argmax,
resizing) still use AVX-512. Each variant has its own processes, which take turns, and the shortest
time counts. With one thread the processor time is reported, which other jobs on the machine hardly
change; with more threads the wall time is.

The limit is the time that the network's multiplications take at the speed of one large matrix
product: no program that does all of them in float32 is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import harness

LIMITS = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "OPENBLAS_CORETYPE": "Haswell",
}
SIZE, CLASSES, PRODUCT = (360, 480), 11, 1024
EAGER, PRODUCT_NAME = ("eager", "eager channels_last"), "matrix product"
VARIANTS = {
    "openvino, converter's argmax, default kernels": ("plain", False),
    "openvino, argmax with classes first": ("argmax", False),
    "openvino, kernels for blocks": ("plain", True),
    "openvino": ("argmax", True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="a trained DeepLabV3+; random weights without")
    parser.add_argument("--rounds", type=int, default=4, help="processes per variant")
    parser.add_argument("--seconds", type=float, default=4, help="of each process")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work = prepare(arguments.worker, arguments.folder)
        print(json.dumps(shortest(work, arguments.seconds, cpu_time=arguments.threads == 1)))
        return
    with tempfile.TemporaryDirectory(prefix="pixelwise-bench-") as folder:
        flops = export_both(Path(folder), arguments.bundle)
        times = measure(Path(folder), arguments)
    report(times, flops, arguments)
    harness.finish()


def export_both(folder: Path, bundle: Path | None) -> int:
    """Write the exports with and without the argmax of classes first; return the operations."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pixelwise.exporters import export, openvino_format
    from pixelwise.inference.runtimes.torch.simplify import simplify
    from pixelwise.weights.bundle import Bundle
    from runtimes import random_bundle

    path = folder / "net.safetensors"
    if bundle is None:
        random_bundle(path, "deeplab_v3plus", {}, CLASSES)
    else:
        path.write_bytes(bundle.read_bytes())
    export(path, out=folder / "argmax")
    openvino_format.lower_argmax = lambda model: None
    export(path, out=folder / "plain")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        simplify(Bundle.load(path).build())(torch.zeros(1, 3, *SIZE))
    return counter.get_total_flops()


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the shortest milliseconds of each variant."""
    count = str(arguments.threads)
    threads = {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}
    options = ["--folder", str(folder), "--seconds", str(arguments.seconds), "--threads", count]
    times: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name in (*EAGER, *VARIANTS, PRODUCT_NAME):
            command = [sys.executable, __file__, *options, "--worker", name]
            with harness.attempt(name):
                answer = harness.run(command, env={**os.environ, **LIMITS, **threads})
                best = float(json.loads(answer.splitlines()[-1]))
                times[name] = min(best, times.get(name, best))
    return times


def prepare(name: str, folder: Path) -> Callable[[], Any]:
    """Return one unit of work: predict an image, or multiply two matrices."""
    import numpy as np

    if name == PRODUCT_NAME:
        left, right = np.random.default_rng(0).random((2, PRODUCT, PRODUCT), dtype=np.float32)
        return lambda: left @ right
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    if name in EAGER:
        from pixelwise.benchmark.benchmark_worker import _load_eager

        classify, _ = _load_eager(folder / "net.safetensors", channels_last=name != "eager")
        return lambda: classify(image)
    from pixelwise.inference.export_manifest import ExportManifest
    from pixelwise.inference.runtimes import open_export
    from pixelwise.inference.runtimes.openvino import openvino_runtime

    form, blocks = VARIANTS[name]
    openvino_runtime.prefers_blocked_kernels = lambda: blocks
    runtime = open_export(ExportManifest.load(folder / form))
    return lambda: runtime.predict_labels(image)


def shortest(work: Callable[[], Any], seconds: float, *, cpu_time: bool) -> float:
    """Return the shortest milliseconds of `work`, repeated for some seconds."""
    clock = time.process_time if cpu_time else time.perf_counter
    work()
    work()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        started = clock()
        work()
        times.append(1000 * (clock() - started))
    return min(times)


def report(times: dict[str, float], flops: int, arguments: argparse.Namespace) -> None:
    clock = "processor time" if arguments.threads == 1 else "wall time"
    print(f"{harness.machine()}, {date.today().isoformat()}, limited to AVX2 ({LIMITS})")
    print(f"{arguments.threads} thread(s), {clock}, shortest of {arguments.rounds} processes")
    eager = min((times[name] for name in EAGER if name in times), default=float("nan"))
    if PRODUCT_NAME in times:
        rate = 2 * PRODUCT**3 / times[PRODUCT_NAME]  # operations per millisecond
        limit = f"limit: {flops / 1e9:.1f} G operations at {rate / 1e6:.1f} GFLOP/s"
        times = {**times, limit: flops / rate}
    print(f"{'':50} {'ms':>8} {'x eager':>8}")
    for name, milliseconds in times.items():
        if name != PRODUCT_NAME:
            print(f"{name:50} {milliseconds:8.1f} {eager / milliseconds:8.2f}")


if __name__ == "__main__":
    main()
