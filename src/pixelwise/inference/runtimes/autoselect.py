"""Select the fastest runtime for a job on this machine: measured once, then cached."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
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
from pixelwise.inference.runtimes.tile_geometry import Size
from pixelwise.process_settings import cores

DEFAULT_SIZE = (360, 480)  # height and width, for jobs of unknown size
MAX_PIXELS = 2**20  # larger images are slower in proportion, for every runtime
REPEATS = 3
LONG = 2.0  # seconds of a call that is not repeated
PACKAGES = ("torch", "openvino", "onnxruntime")

Opened = TypeVar("Opened")


def select_fastest(
    digest: str,
    candidates: Mapping[str, Callable[[], Opened]],
    measure: Callable[[Opened, Size], float],
    *,
    size: Size | None = None,
) -> tuple[str, Opened | None]:
    """Return the name of the fastest candidate.

    The measurement is kept in `runtimes.json` of the cache folder, for these files, this processor,
    this set of candidates, these package versions and images of about this number of pixels (within
    a factor of the square root of 2).

    Args:
        digest: Digest of the files that the candidates execute.
        candidates: Function that opens each candidate, by name.
        measure: Returns the seconds that an opened candidate takes for an image of a size, see
            `latency`.
        size: Height and width of the images of this job. None: not known.

    Returns:
        The name, and the opened candidate if the measurement opened it.
    """
    names = list(candidates)
    if len(names) == 1:
        return names[0], None
    measured = _measured_size(size or DEFAULT_SIZE)
    cached = _read_cache()
    key = _cache_key(digest, names, measured)
    if cached.get(key, {}).get("fastest") in candidates:
        return str(cached[key]["fastest"]), None
    opened = {name: open_candidate() for name, open_candidate in candidates.items()}
    seconds = {name: measure(candidate, measured) for name, candidate in opened.items()}
    fastest = min(seconds, key=lambda name: seconds[name])
    milliseconds = {name: round(1000 * value, 2) for name, value in seconds.items()}
    _write_cache(key, {"fastest": fastest, "milliseconds": milliseconds, "size": list(measured)})
    return fastest, opened[fastest]


def latency(runtime: Runtime, pixels: PixelFormat, size: Size = DEFAULT_SIZE) -> float:
    """Return the shortest time of a few calls for an image of a size, in seconds."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = pixels.like(noise)
    runtime.predict_labels(image)  # some runtimes compile for the first image
    seconds: list[float] = []
    while len(seconds) < REPEATS and max(seconds, default=0) < LONG:
        start = time.perf_counter()
        runtime.predict_labels(image)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _measured_size(size: Size) -> Size:
    """Shrink a size to at most MAX_PIXELS."""
    scale = min(1.0, math.sqrt(MAX_PIXELS / (size[0] * size[1])))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def _cache_key(digest: str, names: list[str], size: Size) -> str:
    versions = [f"{package} {installed(package)}" for package in PACKAGES]
    pixels = round(math.log2(size[0] * size[1]))
    parts = [digest, *sorted(names), *versions, *processor(), f"2^{pixels} pixels"]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def processor() -> list[str]:
    """Describe the processor and the number of its cores that may be used.

    The name of the machine is not part of this: each container has another one.
    """
    described = [platform.machine(), platform.processor(), str(cores())]
    with suppress(OSError, UnicodeError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        fields = ("model name", "flags", "Features", "CPU part")  # of x86 and ARM
        described += sorted({line for line in lines if line.startswith(fields)})
    return described


def _cache_file() -> Path:
    """Return the cache's file. Raises InputError if there is no folder for it."""
    folder = cache_folder()
    if folder is None:
        raise InputError("no home folder: set PIXELWISE_CACHE")
    return folder / "runtimes.json"


def _read_cache() -> dict[str, Any]:
    try:
        content = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # an InputError is a ValueError
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {key: entry for key, entry in entries if isinstance(entry, dict)}


def _write_cache(key: str, entry: dict[str, Any]) -> None:
    """Add an entry. Without a writable cache, the next process measures again."""
    with suppress(InputError):
        file = _cache_file()
        make_folder(file.parent)
        content = _read_cache() | {key: entry}  # other processes may have written meanwhile
        write_text(file, json.dumps(content, indent=1) + "\n")
