"""How functions are compiled: without Python's lock, and once for a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

inner = njit(forceinline=True, error_model="numpy")
"""A part of another compiled function."""


def outer(function: Callable[..., Any]) -> Any:
    """Compile at the first call, and keep the result for later processes where that is possible."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return njit(nogil=True, error_model="numpy")(function)
