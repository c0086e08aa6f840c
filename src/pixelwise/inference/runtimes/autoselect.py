"""Which runtime is the fastest here: measured once for a bundle on a machine, then remembered."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from pixelwise.data.pixel_format import PixelFormat
from pixelwise.errors import InputError
from pixelwise.file_io import atomic, cache_folder, make_folder
from pixelwise.inference.runtimes import installed
from pixelwise.inference.runtimes.runtime import Runtime

MEASURED = (360, 480)  # pixels, rows and columns
REPEATS = 3
Opened = TypeVar("Opened")
PACKAGES = ("torch", "openvino", "onnxruntime")


def select_fastest(
    digest: str,
    candidates: Mapping[str, Callable[[], Opened]],
    *,
    runtime: Callable[[Opened], Runtime],
    pixels: Callable[[Opened], PixelFormat],
) -> tuple[str, Opened | None]:
    """The name of the fastest of `candidates`, and what it opens where that was opened to measure.

    digest: of the bundle that they all run. runtime, pixels: of what a candidate opens, and what
    it is to be given. What was measured is kept in the cache's runtimes.json, for this bundle,
    machine, set of candidates and versions of their packages.
    """
    names = list(candidates)
    if len(names) == 1:
        return names[0], None
    file = cache_folder() / "runtimes.json"
    known = _read(file)
    key = _key(digest, names)
    if known.get(key, {}).get("select_fastest") in candidates:
        return str(known[key]["select_fastest"]), None
    opened = {name: make() for name, make in candidates.items()}
    noise = np.random.default_rng(0).integers(0, 256, (*MEASURED, 3), dtype=np.uint8)
    seconds = {
        name: _measure(runtime(one), pixels(one).like(noise)) for name, one in opened.items()
    }
    best = min(seconds, key=lambda name: seconds[name])
    milliseconds = {name: round(1000 * value, 2) for name, value in seconds.items()}
    known[key] = {"select_fastest": best, "milliseconds": milliseconds, "size": list(MEASURED)}
    try:
        make_folder(file.parent)
        with atomic(file) as side:
            side.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    except InputError:
        pass  # a cache that cannot be written costs the measurement again, nothing else
    return best, opened[best]


def _measure(runtime: Runtime, image: Any) -> float:
    runtime.classify(image)  # what is compiled at the first image
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        runtime.classify(image)
        times.append(time.perf_counter() - began)
    return min(times)


def _key(digest: str, names: list[str]) -> str:
    versions = [f"{package} {installed(package)}" for package in PACKAGES]
    machine = [platform.node(), platform.machine(), platform.processor(), str(os.cpu_count())]
    return hashlib.sha256(
        "|".join([digest, *sorted(names), *versions, *machine]).encode()
    ).hexdigest()


def _read(file: Any) -> dict[str, Any]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
