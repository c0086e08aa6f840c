"""Start the processes of a distributed run on this machine, and stay to supervise them.

`launch` starts the command once per device with the variables that torchrun would set, forwards
signals, and ends what is left when one process dies.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from pixelwise.distributed.process_rank import LAUNCHED, LOST
from pixelwise.errors import InputError
from pixelwise.interrupts import SIGNALS
from pixelwise.planning import this_machine

PATIENCE = 30.0
"""Seconds that the other processes have to end by themselves after one has failed."""
POLL = 0.05


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
            LAUNCHED: str(os.getpid()),
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
