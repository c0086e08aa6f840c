"""Start and supervise the processes of a distributed run on this machine.

`launch` starts the command once per device with the variables that torchrun would set, forwards
signals, and ends the remaining processes when one dies.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from pixelwise.distributed.environment import LAUNCHER_VARIABLE, LOST
from pixelwise.errors import InputError
from pixelwise.interrupts import SIGNALS
from pixelwise.planning.machine import this_machine

PATIENCE = 30.0
"""Seconds that the other processes have to end on their own after one has failed."""
POLL_SECONDS = 0.05


def launch(*, devices: int, nodes: int, remedy: str) -> int:
    """Run the command of this process in `devices` processes on this machine.

    With several machines, start the command on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK in
    the environment as PyTorch defines them.

    Args:
        devices: Number of processes on this machine.
        nodes: Number of machines.
        remedy: What to do if a process was killed, for the error message.

    Returns:
        The exit code of the process that failed first, or 1 if that was killed; 0 if none failed.

    Raises:
        InputError: If a variable is missing or invalid.
    """
    rendezvous = _rendezvous(nodes)
    first_rank = int(rendezvous["NODE_RANK"]) * devices
    threads = {"OMP_NUM_THREADS": str(max(1, this_machine().cores // devices))}
    children = []
    for local_rank in range(devices):
        ranks = {
            "RANK": str(first_rank + local_rank),
            "WORLD_SIZE": str(devices * nodes),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(devices),
            "GROUP_RANK": rendezvous["NODE_RANK"],
            "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
            LAUNCHER_VARIABLE: str(os.getpid()),
        }
        children.append(
            subprocess.Popen(
                [sys.executable, "-m", "pixelwise", *sys.argv[1:]],
                env={**threads, **os.environ, **rendezvous, **ranks},
                # Ctrl-C in the terminal reaches only this process, which forwards it once.
                start_new_session=True,
            )
        )
    with _forward_signals(children) as received:
        code, failed = wait_for(children)
    if code >= 0:
        return code
    if -code in received[-1:]:  # killed by the signal before it could handle it
        return 128 - code
    name = signal.Signals(-code).name
    print(
        f"pixelwise: error: process {first_rank + failed} of {devices * nodes} was killed "
        f"({name}): {remedy}",
        file=sys.stderr,
    )
    return 1


def _rendezvous(nodes: int) -> dict[str, str]:
    """Return the variables with the rendezvous address and the rank of this machine."""
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
                f"NODE_RANK = {os.environ['NODE_RANK']!r}: must be a number from 0 to {nodes - 1}"
            )
        return {name: os.environ[name] for name in names}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return dict(zip(names, ("127.0.0.1", str(port), "0"), strict=True))


def wait_for(children: Sequence[subprocess.Popen[Any]]) -> tuple[int, int]:
    """Wait until all processes have ended.

    The process at fault is one that was killed, or else one that failed, or else one that lost
    the connection to the others. Processes that run PATIENCE seconds after the first failure are
    killed.

    Returns:
        Exit code and index of the process at fault; (0, 0) if all succeeded.
    """
    deadline = math.inf
    killed: set[int] = set()
    # Poll all of them each time, so that one that runs does not hide that another has ended.
    while None in (codes := [child.poll() for child in children]):
        now = time.monotonic()
        if deadline == math.inf and any(codes):
            deadline = now + PATIENCE
        if now > deadline:
            killed |= {i for i, code in enumerate(codes) if code is None}
            for i in killed:
                children[i].kill()
        time.sleep(POLL_SECONDS)
    failed = [(code, i) for i, code in enumerate(codes) if code]
    unforced = [(code, i) for code, i in failed if i not in killed]
    order = sorted(unforced or failed, key=lambda end: (end[0] > 0, end[0] == LOST))
    return order[0] if order else (0, 0)


@contextmanager
def _forward_signals(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Forward Ctrl-C and SIGTERM to the processes, and yield the list of received signals."""
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for child in children:
            with suppress(ProcessLookupError):
                child.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield received
    finally:
        for signal_number, handler in previous.items():
            signal.signal(signal_number, handler)
        for child in children:  # still running if an error ended the wait
            if child.poll() is None:
                child.kill()
