"""numba decorators for kernels that release Python's lock and are compiled once per machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

inlined = njit(forceinline=True, error_model="numpy")
"""Compile a function that is inlined into other compiled functions."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call and cache the result for later processes if possible."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither this folder nor the user's cache is writable
        return njit(nogil=True, error_model="numpy")(function)
