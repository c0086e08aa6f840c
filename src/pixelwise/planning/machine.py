"""What a machine offers to this process."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pixelwise.process_settings import cores

# Of control groups, version 2 and 1: what a container may take.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True)
class Machine:
    """cores: that this process may use. memory: bytes, None where the system does not say.

    gpu: its name, "" for none. gpu_memory: bytes of its own, None where it shares the machine's.
    """

    cores: int
    memory: int | None
    gpu: str = ""
    gpu_memory: int | None = None

    @property
    def training_memory(self) -> int | None:
        """Bytes of the memory in which a network would be trained."""
        return self.memory if self.gpu_memory is None else self.gpu_memory


def this_machine() -> Machine:
    """The machine as the system tells it; a GPU is not looked for."""
    return Machine(cores(), _memory())


def _memory() -> int | None:
    found = []
    with suppress(OSError, ValueError, AttributeError):  # Windows has no sysconf
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # it is not there, or holds `max`
            found.append(int(path.read_text()))
    return min((size for size in found if size > 0), default=None)
