"""Ctrl-C and SIGTERM as requests that a long computation answers at the next safe point."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from pixelwise.errors import PixelwiseError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
