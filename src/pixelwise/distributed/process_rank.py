"""The rank of this process in a distributed run, as its environment states it.

torchrun, SLURM and `pixelwise train --devices` start the processes. Each finds its rank in its
environment variables.
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

LONG_PATIENCE = 120.0
"""Seconds that a process has to finish its step and write a checkpoint after its launcher is gone."""
LOST = 75
"""The exit code of a process that has lost the others: EX_TEMPFAIL of sysexits.h."""
LAUNCHED = "PIXELWISELAUNCHED"
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class ProcessRank:
    """A process among the `count` of a run, `devices` of them on this machine; ranks from 0.

    slurm: SLURM has started it, else torchrun or `launch`. launched: `launch` has.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    devices: int = 1
    slurm: bool = False
    launched: bool = False

    @property
    def nodes(self) -> int:
        return self.count // self.devices


def find_process_rank(environment: Mapping[str, str] | None = None) -> ProcessRank | None:
    """This process's place by its environment; None where it is the only one.

    Raises InputError for variables that are no such numbers.
    """
    values = os.environ if environment is None else environment
    if "RANK" in values and "WORLD_SIZE" in values:
        rank, count, local_rank, devices = _numbers(values, _TORCHRUN)
        place = ProcessRank(rank, count, local_rank, devices, launched=LAUNCHED in values)
    elif "SLURM_STEP_NUM_TASKS" in values and "SLURM_PROCID" in values:  # by srun
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NUM_NODES")
        rank, count, local_rank, nodes = _numbers(values, names)
        place = ProcessRank(rank, count, local_rank, count // max(1, nodes), slurm=True)
    else:
        return None
    if not 0 <= place.rank < place.count or place.devices < 1 or place.count % place.devices:
        raise InputError(
            f"the environment has process {place.rank} of {place.count}, {place.devices} on each "
            "machine: start as many on each"
        )
    return place if place.count > 1 else None


def _numbers(values: Mapping[str, str], names: tuple[str, ...]) -> list[int]:
    numbers = []
    for name in names:
        try:
            numbers.append(int(values[name]))
        except (KeyError, ValueError) as error:
            raise InputError(
                f"the environment variable {name} is {values.get(name, 'not set')!r}, beside "
                f"{names[0]}: start the processes with torchrun, srun or --devices"
            ) from error
    return numbers


def check_process_rank(place: ProcessRank, *, devices: int | None, nodes: int | None) -> None:
    """Raise InputError where flags say something else than the environment."""
    for flag, given, found in (("devices", devices, place.devices), ("nodes", nodes, place.nodes)):
        if given is not None and given != found:
            raise InputError(
                f"--{flag} {given}: the processes were started with {found}: leave it out"
            )


def follow_launcher() -> None:
    """In a process that `launch` has started: end, as by SIGTERM, when the launcher is gone; where
    that has no effect, as in a wait for another that was killed, at once after LONG_PATIENCE."""
    launcher = int(os.environ[LAUNCHED])

    def follow() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LONG_PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True, name="follow-launcher").start()


@contextmanager
def report_once() -> Iterator[None]:
    """Around checks before the processes have met, in which all of a machine fail alike: one of
    them tells it."""
    place = find_process_rank()
    try:
        yield
    except PixelwiseError as error:
        if place is not None and place.local_rank:
            raise ReportedElsewhereError(error.exit_code) from error
        raise
