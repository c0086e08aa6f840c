"""What a runtime must not share with a forked process, nor send to another one.

A fork copies the memory of a process, but none of its threads: a lock that another thread held is
never released, and a compiled model waits forever for threads that it started. Locks and compiled
models are therefore kept in the classes below, which a forked process finds empty. PyTorch starts
its threads through OpenMP, see `stop_openmp_before_forks`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import RLock
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

Value = TypeVar("Value")

_PAUSE_HARD = 2  # omp_pause_hard of OpenMP 5.0: stop all threads


class Forgetful(Protocol):
    """An object of which a forked process keeps nothing."""

    def forget(self) -> None:
        """Return to the initial state. Called in the forked process."""


_forgetful: WeakSet[Any] = WeakSet()


def forget_after_fork(holder: Forgetful) -> None:
    """Have `holder.forget` called in each forked process."""
    _forgetful.add(holder)


class ProcessLock:
    """A reentrant lock that is free in a forked process, in a pickle and in a copy."""

    def __init__(self) -> None:
        self.forget()
        forget_after_fork(self)

    def forget(self) -> None:
        self._lock = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[ProcessLock], tuple[()]]:
        return ProcessLock, ()


class Latest(Generic[Value]):
    """The latest value of a function of a key; a forked process computes its own."""

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._latest: tuple[Hashable, Value] | None = None
        forget_after_fork(self)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value for `key`, computed by `make` unless it is the latest one."""
        with self._lock:
            if self._latest is None or self._latest[0] != key:
                self._latest = None  # free its memory before the next one is made
                self._latest = (key, make())
            return self._latest[1]

    def forget(self) -> None:
        keep_forever(self._latest)
        self._latest = None


def keep_forever(value: object) -> None:
    """Never free an object, because freeing it would wait for threads of the parent process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _forget_all() -> None:
    for holder in list(_forgetful):
        holder.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def stop_openmp_before_forks(use_one_thread: Callable[[], None]) -> None:
    """Stop the threads of GNU OpenMP before each fork; they start again when they are needed.

    Without this, a forked process hangs in its first parallel computation if its parent has ever
    computed. Other OpenMP libraries survive forks. Call this after the library has been loaded.

    Args:
        use_one_thread: Called in a forked process whose parent could not stop its threads.
    """
    stops = [getattr(library, "omp_pause_resource_all", None) for library in _gnu_openmp()]
    stopped = True

    def stop() -> None:
        nonlocal stopped
        stopped = all(function is not None and function(_PAUSE_HARD) == 0 for function in stops)

    def check() -> None:
        if not stopped:
            use_one_thread()

    if stops and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=stop, after_in_child=check)


def _gnu_openmp() -> list[ctypes.CDLL]:
    """Return the copies of libgomp in this process: packages bring their own."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    files = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "gomp" in line}
    return [ctypes.CDLL(file) for file in sorted(files) if Path(file).is_file()]
