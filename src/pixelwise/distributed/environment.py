"""The rank of this process in a distributed run, read from the environment.

torchrun, SLURM and `pixelwise train --devices` start the processes and set the variables.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pixelwise.errors import InputError, PixelwiseError, ReportedElsewhereError

ORPHAN_PATIENCE = 120.0
"""Seconds that a process may take to finish its step and write a checkpoint once its launcher has
ended."""
LOST = 75
"""Exit code of a process that has lost the other processes: EX_TEMPFAIL of sysexits.h."""
LAUNCHER_VARIABLE = "PIXELWISE_LAUNCHER_PID"
"""Environment variable with the process id of `pixelwise train --devices`."""
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NUM_NODES")


@dataclass(frozen=True)
class DistributedEnv:
    """The position of a process in a run.

    Attributes:
        rank: Rank in the run, from 0.
        world_size: Number of processes of the run.
        local_rank: Rank on this machine, from 0.
        local_world_size: Number of processes on this machine.
        slurm: Whether SLURM started the process.
        launched: Whether `pixelwise train --devices` started the process.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    slurm: bool = False
    launched: bool = False

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.world_size // self.local_world_size


def read_distributed_env(environment: Mapping[str, str] | None = None) -> DistributedEnv | None:
    """Return the rank of this process, or None if it is the only one.

    Args:
        environment: The variables. None: this process's environment.

    Raises:
        InputError: If a variable is missing or has an invalid value.
    """
    values = os.environ if environment is None else environment
    by_torchrun = "RANK" in values and "WORLD_SIZE" in values
    if by_torchrun:
        rank, world_size, local_rank, local_size = _read_numbers(values, _TORCHRUN)
    elif "SLURM_STEP_NUM_TASKS" in values and "SLURM_PROCID" in values:  # started by srun
        rank, world_size, local_rank, nodes = _read_numbers(values, _SLURM)
        local_size = world_size // max(1, nodes)
    else:
        return None
    if not 0 <= rank < world_size or local_size < 1 or world_size % local_size:
        raise InputError(
            f"the environment sets rank {rank} of {world_size} processes, {local_size} per "
            "machine: start the same number of processes on each machine"
        )
    if world_size == 1:
        return None
    launched = by_torchrun and LAUNCHER_VARIABLE in values
    return DistributedEnv(rank, world_size, local_rank, local_size, not by_torchrun, launched)


def _read_numbers(values: Mapping[str, str], names: tuple[str, ...]) -> list[int]:
    numbers = []
    for name in names:
        try:
            numbers.append(int(values[name]))
        except (KeyError, ValueError) as error:
            raise InputError(
                f"the environment variable {name} is {values.get(name, 'not set')!r} although "
                f"{names[0]} is set: start the processes with torchrun, srun or --devices"
            ) from error
    return numbers


def check_distributed_env(
    distributed_env: DistributedEnv, *, devices: int | None, nodes: int | None
) -> None:
    """Raise InputError if --devices or --nodes contradicts the environment."""
    for flag, given, found in (
        ("devices", devices, distributed_env.local_world_size),
        ("nodes", nodes, distributed_env.nodes),
    ):
        if given is not None and given != found:
            raise InputError(
                f"--{flag} {given}: the processes were started with {found}: omit --{flag}"
            )


def follow_launcher() -> None:
    """Send SIGTERM to this process when its launcher exits.

    If that has no effect within ORPHAN_PATIENCE, for example because the process waits for another
    one that was killed, kill it.
    """
    launcher = int(os.environ[LAUNCHER_VARIABLE])

    def follow() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True, name="follow-launcher").start()


@contextmanager
def report_once() -> Iterator[None]:
    """Let one process per machine report an error that all of them raise.

    For checks before the process group exists, which fail on all processes of a machine alike.
    """
    distributed_env = read_distributed_env()
    try:
        yield
    except PixelwiseError as error:
        if distributed_env is not None and distributed_env.local_rank:
            raise ReportedElsewhereError(error.exit_code) from error
        raise
