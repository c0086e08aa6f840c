"""The resources of this machine that the process may use."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pixelwise.process_settings import cores

# Memory limits of control groups, versions 2 and 1: the limits of a container.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        cores: Number of cores that this process may use.
        memory: Bytes of memory. None: not known.
        gpu: Name of the GPU, or "" without one.
        gpu_memory: Bytes of the GPU's own memory. None: it uses the machine's memory.
    """

    cores: int
    memory: int | None
    gpu: str = ""
    gpu_memory: int | None = None

    @property
    def training_memory(self) -> int | None:
        """Bytes of the memory in which a network is trained."""
        return self.memory if self.gpu_memory is None else self.gpu_memory


def this_machine() -> Machine:
    """Return this machine, without looking for a GPU."""
    return Machine(cores(), _memory())


def _memory() -> int | None:
    limits = []
    with suppress(OSError, ValueError, AttributeError):  # Windows has no sysconf
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # no such file, or it holds `max`
            limits.append(int(path.read_text()))
    return min((limit for limit in limits if limit > 0), default=None)
