"""Functions that kill their process when called, for tests of resuming."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


def dying(function: Callable[..., Any], *, times: int, after: bool = False) -> Callable[..., Any]:
    """Return the function; the process dies before, or after, its `times`-th call."""
    calls = 0

    def armed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == times and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return armed
