"""Settings of the whole process, touched only where pixelwise is the program and not a guest; and
the cores that it has.

A training step allocates and frees the same blocks of tens of megabytes each time. glibc hands such
blocks back to the kernel at once and faults them in again, page by page: measured at a quarter of
the step's time (benchmarks/training.py prints it). `tune_allocator` tells it to keep them.

OpenMP's threads wait for each other in a loop, for milliseconds, before they sleep. Where another
program has one of the cores, that is the time in which it should have run: measured on two cores,
three times the step's time in place of two. `limit_omp_spin` lets them wait a tenth as long, which
alone on the machine costs nothing; without any loop a step takes a fifth longer there
(benchmarks/training.py --busy 1).
"""

from __future__ import annotations

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc
_NEVER = -1  # as a threshold: the heap is not trimmed at all
_TOP_PAD = 64 << 20


_SPINS = "10000"  # of libgomp's 300,000; half a millisecond


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_omp_spin() -> None:
    """Have OpenMP's threads sleep sooner. PyTorch reads it once, so this comes before its import.

    Only the program calls this. What the person has set stays.
    """
    if not any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")):
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def tune_allocator() -> str | None:
    """Tell glibc to keep freed blocks; says what was done, None if nothing was.

    Only the commands call this. Where the person has set glibc's variables, another allocator is
    preloaded, or the C library is not glibc, things stay as they are.
    """
    if platform.libc_ver()[0] != "glibc" or os.environ.get("LD_PRELOAD"):
        return None
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc" in tunables or any(name.startswith("MALLOC_") for name in os.environ):
        return None
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return None
    kept = (
        mallopt(_M_MMAP_MAX, 0)  # large blocks from the heap, not from mappings of their own
        and mallopt(_M_TRIM_THRESHOLD, _NEVER)
        and mallopt(_M_TOP_PAD, _TOP_PAD)
    )
    return "freed memory is kept by the process (mallopt)" if kept else None
