"""Ctrl-C and SIGTERM as a request that long work answers at its next good moment."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from pixelwise.errors import PixelwiseError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(PixelwiseError):
    """Work that was asked to stop, and can go on. `exit_code`: 130 by Ctrl-C, 143 by SIGTERM."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Interrupts:
    """While it is entered, the first signal is kept in `requested`; the second does what it does
    otherwise. Outside of the main thread, which alone gets signals, it does nothing."""

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._keep) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()

    def _keep(self, number: int, frame: FrameType | None) -> None:
        self.requested = number
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
