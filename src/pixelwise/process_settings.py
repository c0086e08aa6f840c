"""Process-wide settings, most of which only the commands change, and the number of usable cores.

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
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # from glibc's malloc.h
_NEVER = -1  # as a threshold: never trim the heap
_TOP_PAD = 64 << 20

_SPIN_COUNT = "10000"  # libgomp's default is 300,000. This is about half a millisecond.


_CONTROL_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """Return the number of cores that this process may use.

    These are the cores of its affinity mask, or as many as the CPU quota of its control groups
    allows (`docker --cpus`, rounded up).
    """
    quota = _cpu_quota()
    return _affinity() if quota is None else max(1, min(_affinity(), math.ceil(quota)))


def thread_limit() -> int:
    """Return the largest number of threads for a computation, or 0 if all cores may be used."""
    usable = cores()
    return 0 if usable == os.cpu_count() else usable


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_quota() -> float | None:
    """Return the smallest CPU quota of this process's control groups, in cores; None without one.

    A quota of a group also holds for the groups below it.
    """
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in {controllers, "cpu"} if controllers else ("", "unified"):
            folder = _CONTROL_GROUPS / mount
            inside = Path(path.lstrip("/"))
            quotas += [_group_quota(folder / group) for group in (inside, *inside.parents)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _group_quota(group: Path) -> float | None:
    """Return the CPU quota of one control group, of version 2 or 1."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            values = " ".join((group / name).read_text(encoding="utf-8") for name in names)
            quota, period = (int(value) for value in values.split())
        except (OSError, ValueError):  # no such file, or no quota: "max"
            continue
        if quota > 0 and period > 0:  # version 1 writes -1 for no quota
            return quota / period
    return None


_NO_TELEMETRY = {"CI": "true", "ORT_DISABLE_TELEMETRY": "1"}
_silencing = Lock()
_silenced: list[dict[str, str | None]] = []  # the variables before, once for each active block


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import OpenVINO, NNCF or ONNX Runtime inside this block: they then send no usage reports.

    They would do so while they predict, and print warnings if the home folder is not writable. They
    also ask for that folder, which fails for a user without an account unless HOME is set.
    """
    with _silencing:
        settings = _NO_TELEMETRY if _has_home() else _NO_TELEMETRY | {"HOME": os.devnull}
        before = {name: os.environ.get(name) for name in settings}
        _silenced.append(_silenced[0] if _silenced else before)
        os.environ.update(settings)
    try:
        yield
    finally:
        with _silencing:
            before = _silenced.pop()
            for name, value in before.items() if not _silenced else ():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _has_home() -> bool:
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


def limit_threads() -> None:
    """Make OpenMP use no more threads than the CPU quota allows, unless the user configured it.

    PyTorch reads the setting once, so call this before importing torch. Only the command line
    calls it, never the library.
    """
    if cores() < _affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


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
