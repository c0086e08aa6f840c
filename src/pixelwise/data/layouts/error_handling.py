"""Context managers that collect input errors and add their location."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pixelwise.errors import InputError


@contextmanager
def collect_errors(problems: list[str]) -> Iterator[None]:
    """Add the problems of an InputError raised inside to `problems` instead of raising it."""
    try:
        yield
    except InputError as error:
        problems += error.problems


@contextmanager
def error_context(where: object) -> Iterator[None]:
    """Prefix every problem of an InputError raised inside with `where` and a colon."""
    try:
        yield
    except InputError as error:
        raise InputError(*(f"{where}: {problem}" for problem in error.problems)) from error
