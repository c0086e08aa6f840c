"""Ctrl-C and SIGTERM as requests that a long computation answers at the next safe point."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Literal

from pixelwise.errors import PixelwiseError

SIGNALS = (signal.SIGINT, signal.SIGTERM)

Answer = Literal["stop", "finish", "continue"]
"""What a run does after Ctrl-C."""
QUESTION = (
    "pixelwise: everything is saved. [s]top and resume later, [f]inish: end the run after this "
    "epoch, or [c]ontinue? [s] "
)


class StoppedError(PixelwiseError):
    """Work stopped on request that can be continued later.

    `exit_code` is 130 after Ctrl-C and 143 after SIGTERM.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Interrupts:
    """Context manager that stores the first signal in `requested` instead of acting on it.

    The previous handlers are restored then, so a second signal has its usual effect. Does nothing
    outside the main thread, because only the main thread receives signals.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = number
        if os.isatty(2):  # os.write, because a signal may interrupt a print to the same stream
            os.write(2, b"\npixelwise: stopping after this step; Ctrl-C again stops at once\n")
        self._restore()

    def rearm(self) -> None:
        """Forget the request, and store the next signal."""
        self.requested = None
        self.__enter__()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}


def ask_after_interrupt() -> Answer:
    """Ask what to do after Ctrl-C. The answer is "stop" where nobody can answer, or at Ctrl-C."""
    if not _is_in_foreground():
        return "stop"
    answers: dict[str, Answer] = {"s": "stop", "f": "finish", "c": "continue", "": "stop"}
    try:
        while True:
            print(QUESTION, end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:  # the terminal is gone
                return "stop"
            answer = answers.get(line.strip().lower()[:1])
            if answer is not None:
                return answer
    except KeyboardInterrupt:
        return "stop"


def _is_in_foreground() -> bool:
    """Return whether this process can ask on a terminal; in the background, reading suspends it."""
    try:
        on_terminal = sys.stdin.isatty() and sys.stderr.isatty()
        return on_terminal and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):  # Windows, another session, a closed stream
        return False
