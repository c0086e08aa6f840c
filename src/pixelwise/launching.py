"""Several processes for one command: what the environment says of them, and starting them.

torchrun and SLURM start the processes themselves, and each finds its place among them in its
environment. `launch` does the same for one machine's part: it starts the command once a device,
with the variables that torchrun would set, and stays to pass signals on and to end what is left
when one of them dies.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from pixelwise.errors import InputError, PixelwiseError, ToldElsewhereError
from pixelwise.interrupts import SIGNALS
from pixelwise.planning import this_machine

PATIENCE = 30.0
"""Seconds that the others have to end by themselves after one has failed."""
LONG_PATIENCE = 120.0
"""Seconds that a process has to end its step and write a checkpoint when its launcher is gone."""
POLL = 0.05
LOST = 75
"""The exit code of a process that has lost the others: as sysexits.h has it, try again."""
_LAUNCHED = "PIXELWISE_LAUNCHED"
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Place:
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


def find_place(environment: Mapping[str, str] | None = None) -> Place | None:
    """This process's place by its environment; None where it is the only one.

    Raises InputError for variables that are no such numbers.
    """
    values = os.environ if environment is None else environment
    if "RANK" in values and "WORLD_SIZE" in values:
        rank, count, local_rank, devices = _numbers(values, _TORCHRUN)
        place = Place(rank, count, local_rank, devices, launched=_LAUNCHED in values)
    elif "SLURM_STEP_NUM_TASKS" in values and "SLURM_PROCID" in values:  # by srun
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_NUM_NODES")
        rank, count, local_rank, nodes = _numbers(values, names)
        place = Place(rank, count, local_rank, count // max(1, nodes), slurm=True)
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


def check_place(place: Place, *, devices: int | None, nodes: int | None) -> None:
    """Raise InputError where flags say something else than the environment."""
    for flag, given, found in (("devices", devices, place.devices), ("nodes", nodes, place.nodes)):
        if given is not None and given != found:
            raise InputError(
                f"--{flag} {given}: the processes were started with {found}: leave it out"
            )


def launch(*, devices: int, nodes: int, remedy: str) -> int:
    """Run this process's own command in `devices` processes, its part of a run on `nodes` machines.

    With several machines the command is given on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK
    in the environment, as PyTorch has them. remedy: what to do when one was killed.
    Returns the exit code: of the one at fault; 1 where that one was killed. Raises InputError
    where a variable is missing.
    """
    variables = _meeting(nodes)
    node = int(variables["NODE_RANK"])
    count = devices * nodes
    children = []
    for local in range(devices):
        own = {
            "RANK": str(node * devices + local),
            "WORLD_SIZE": str(count),
            "LOCAL_RANK": str(local),
            "LOCAL_WORLD_SIZE": str(devices),
            "GROUP_RANK": str(node),
            "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
            _LAUNCHED: str(os.getpid()),
        }
        threads = {"OMP_NUM_THREADS": str(max(1, this_machine().cores // devices))}
        children.append(
            subprocess.Popen(
                [sys.executable, "-m", "pixelwise", *sys.argv[1:]],
                env={**threads, **os.environ, **variables, **own},
                # Ctrl-C in the terminal reaches this process alone, which passes it on once.
                start_new_session=True,
            )
        )
    with _Forwarding(children) as forwarding:
        code, failed = wait_for(children)
    if code >= 0:
        return code
    if -code == forwarding.number:  # before it could answer
        return 128 + forwarding.number
    name = signal.Signals(-code).name
    print(
        f"pixelwise: error: process {node * devices + failed} of {count} was killed ({name}): "
        f"{remedy}",
        file=sys.stderr,
    )
    return 1


def follow_launcher() -> None:
    """In a process that `launch` has started: end, as by SIGTERM, when the launcher is gone; where
    that has no effect, as in a wait for another that was killed, at once after LONG_PATIENCE."""
    launcher = int(os.environ[_LAUNCHED])

    def follow() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LONG_PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True, name="follow-launcher").start()


def _meeting(nodes: int) -> dict[str, str]:
    """Where the processes find each other, and which of the machines this is."""
    names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    if nodes > 1:
        missing = [name for name in names if name not in os.environ]
        if missing:
            raise InputError(
                f"--nodes {nodes}: {', '.join(missing)} not set: on each machine set MASTER_ADDR "
                "and MASTER_PORT, the address and a free port of the first, and NODE_RANK, from 0; "
                "or start the command with torchrun or srun"
            )
        if not os.environ["NODE_RANK"].isdecimal() or int(os.environ["NODE_RANK"]) >= nodes:
            raise InputError(
                f"NODE_RANK = {os.environ['NODE_RANK']!r}: a number from 0 to {nodes - 1}"
            )
        return {name: os.environ[name] for name in names}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return dict(zip(names, ("127.0.0.1", str(port), "0"), strict=True))


def wait_for(children: Sequence[subprocess.Popen[Any]]) -> tuple[int, int]:
    """The exit code of the process at fault, and which it was, when all have ended; (0, 0) where
    all did well.

    That is one that was killed before one that failed, and this before those that found others
    gone. What is left PATIENCE seconds after the first is killed here.
    """
    deadline = math.inf
    ended: set[int] = set()
    # All are asked each time: one that stays must not hide another's end.
    while None in (codes := [child.poll() for child in children]):
        now = time.monotonic()
        if deadline == math.inf and any(codes):
            deadline = now + PATIENCE
        if now > deadline:
            ended |= {i for i, code in enumerate(codes) if code is None}
            for i in ended:
                children[i].kill()
        time.sleep(POLL)
    failed = [(code, i) for i, code in enumerate(codes) if code]
    by_itself = [(code, i) for code, i in failed if i not in ended]
    order = sorted(by_itself or failed, key=lambda end: (end[0] > 0, end[0] == LOST))
    return order[0] if order else (0, 0)


class _Forwarding:
    """Passes Ctrl-C and SIGTERM on to the processes while it is entered; `number` of the last."""

    def __init__(self, children: list[subprocess.Popen[bytes]]) -> None:
        self.children = children
        self.number = 0

    def __enter__(self) -> _Forwarding:
        self.before = {number: signal.signal(number, self._forward) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        for child in self.children:  # where an error has ended the wait
            if child.poll() is None:
                child.kill()

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for child in self.children:
            with suppress(ProcessLookupError):
                child.send_signal(number)


@contextmanager
def one_voice() -> Iterator[None]:
    """Around checks before the processes have met, in which all of a machine fail alike: one of
    them tells it."""
    place = find_place()
    try:
        yield
    except PixelwiseError as error:
        if place is not None and place.local_rank:
            raise ToldElsewhereError(error.exit_code) from error
        raise
