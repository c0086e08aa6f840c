"""Process-wide settings that only the pixelwise commands change, and the number of usable cores.

A training step allocates and frees the same blocks of tens of megabytes each time. glibc returns
such blocks to the kernel at once and faults them in again page by page, which takes a quarter of
the step's time (measured by benchmarks/training.py). `tune_allocator` makes glibc keep them.

OpenMP threads wait for each other in a busy loop, for milliseconds, before they sleep. If another
program uses one of the cores, they spin while it should run: on two cores, a step takes three times
as long instead of twice. `limit_omp_spin` shortens the loop to a thirtieth, which costs nothing on
an idle machine. Without any spinning a step takes a fifth longer there
(benchmarks/training.py --busy 1).
"""

from __future__ import annotations

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # from glibc's malloc.h
_NEVER = -1  # as a threshold: never trim the heap
_TOP_PAD = 64 << 20

_SPIN_COUNT = "10000"  # libgomp's default is 300,000. This is about half a millisecond.


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_omp_spin() -> None:
    """Make waiting OpenMP threads sleep sooner, unless the user has configured it.

    PyTorch reads the setting once, so call this before importing torch. Only the command line
    calls it, never the library.
    """
    if not any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")):
        os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT


def tune_allocator() -> str | None:
    """Make glibc keep freed blocks, unless the user has configured the allocator.

    Only the command line calls this, never the library. It changes nothing if glibc's variables are
    set, another allocator is preloaded, or the C library is not glibc.

    Returns:
        A description of the change, or None if nothing was changed.
    """
    if platform.libc_ver()[0] != "glibc" or os.environ.get("LD_PRELOAD"):
        return None
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc" in tunables or any(name.startswith("MALLOC_") for name in os.environ):
        return None
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return None
    tuned = (
        mallopt(_M_MMAP_MAX, 0)  # large blocks come from the heap, not from their own mappings
        and mallopt(_M_TRIM_THRESHOLD, _NEVER)
        and mallopt(_M_TOP_PAD, _TOP_PAD)
    )
    return "freed memory is kept by the process (mallopt)" if tuned else None
