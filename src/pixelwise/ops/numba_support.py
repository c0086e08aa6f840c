"""Check whether numba is installed."""

from __future__ import annotations

from importlib.util import find_spec

from pixelwise.errors import InputError


def has_numba() -> bool:
    """Return whether numba is installed."""
    return find_spec("numba") is not None


def require_numba(feature: str) -> None:
    """Check that numba can be imported.

    Args:
        feature: What needs numba, as the subject of the error message.

    Raises:
        InputError: If numba cannot be imported, with the remedy.
    """
    try:
        import numba  # noqa: F401
    except ImportError as error:  # missing, or built for another NumPy version
        raise InputError(
            f"{feature} needs numba, which cannot be imported ({error}): `pip install numba`"
        ) from error
