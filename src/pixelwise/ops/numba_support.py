"""Whether numba is there."""

from __future__ import annotations

from importlib.util import find_spec

from pixelwise.errors import InputError


def numba_is_there() -> bool:
    """Whether numba is installed."""
    return find_spec("numba") is not None


def require_numba(what: str) -> None:
    """Raise InputError, with the remedy, where numba cannot be imported. what: needs it."""
    try:
        import numba  # noqa: F401
    except ImportError as error:  # missing, or for another NumPy than the one here
        raise InputError(
            f"{what} needs numba, which cannot be imported ({error}): `pip install numba`"
        ) from error
