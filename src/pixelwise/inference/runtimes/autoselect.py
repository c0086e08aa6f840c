"""Select the fastest runtime for a bundle on this machine: measured once, then cached."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
import timeit
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pixelwise.data.pixel_format import PixelFormat
from pixelwise.errors import InputError
from pixelwise.file_io import cache_folder, make_folder, write_text
from pixelwise.inference.runtimes import installed
from pixelwise.inference.runtimes.runtime import Runtime

IMAGE_SIZE = (360, 480)  # height, width
REPEATS = 3
PACKAGES = ("torch", "openvino", "onnxruntime")

Opened = TypeVar("Opened")


def select_fastest(
    digest: str,
    candidates: Mapping[str, Callable[[], Opened]],
    measure: Callable[[Opened], float],
) -> tuple[str, Opened | None]:
    """Return the name of the fastest candidate.

    The measurement is kept in `runtimes.json` of the cache folder, for this bundle, this machine,
    this set of candidates and these package versions.

    Args:
        digest: Digest of the bundle that all candidates execute.
        candidates: Function that opens each candidate, by name.
        measure: Returns the seconds that an opened candidate takes, see `latency`.

    Returns:
        The name, and the opened candidate if the measurement opened it.
    """
    names = list(candidates)
    if len(names) == 1:
        return names[0], None
    folder = cache_folder()
    file = None if folder is None else folder / "runtimes.json"
    cached = {} if file is None else _read_cache(file)
    key = _cache_key(digest, names)
    if cached.get(key, {}).get("fastest") in candidates:
        return str(cached[key]["fastest"]), None
    opened = {name: open_candidate() for name, open_candidate in candidates.items()}
    seconds = {name: measure(candidate) for name, candidate in opened.items()}
    fastest = min(seconds, key=lambda name: seconds[name])
    milliseconds = {name: round(1000 * value, 2) for name, value in seconds.items()}
    cached[key] = {"fastest": fastest, "milliseconds": milliseconds, "size": list(IMAGE_SIZE)}
    if file is not None:
        with suppress(InputError):  # without a writable cache, the next process measures again
            make_folder(file.parent)
            write_text(file, json.dumps(cached, indent=1) + "\n")
    return fastest, opened[fastest]


def latency(runtime: Runtime, pixels: PixelFormat) -> float:
    """Return the shortest time of a few calls, in seconds."""
    noise = np.random.default_rng(0).integers(0, 256, (*IMAGE_SIZE, 3), dtype=np.uint8)
    image = pixels.like(noise)
    runtime.predict_labels(image)  # some runtimes compile for the first image
    timer = timeit.Timer(lambda: runtime.predict_labels(image), timer=time.perf_counter)
    return min(timer.repeat(REPEATS, number=1))


def _cache_key(digest: str, names: list[str]) -> str:
    versions = [f"{package} {installed(package)}" for package in PACKAGES]
    machine = [platform.node(), platform.machine(), platform.processor(), str(os.cpu_count())]
    return hashlib.sha256(
        "|".join([digest, *sorted(names), *versions, *machine]).encode()
    ).hexdigest()


def _read_cache(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
