"""Errors that the user can fix, kept apart from bugs in pixelwise itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_ADDRESS = re.compile(r"\b(https?|ftp|s3|gs|file):/(?=[^/\s])")


class PixelwiseError(Exception):
    """Base class of all errors that pixelwise raises on purpose.

    Attributes:
        problems: One line per problem. The commands print all of them.
        exit_code: Exit code of a command that ends with this error.
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        # A `Path` drops a slash of an address: show it as it was given.
        self.problems = tuple(
            problem if isinstance(problem, Fault) else _ADDRESS.sub(r"\1://", problem)
            for problem in problems
        )
        super().__init__("\n".join(self.problems))


class InputError(PixelwiseError, ValueError):
    """A file, value or option that the user gave cannot be used.

    Each of `problems` is one line with the file or value, what is allowed, and the remedy.
    The commands exit with code 2.
    """

    exit_code = 2


class MissingPackageError(InputError, ImportError):
    """An optional package that this call needs is not installed."""


class ReportedElsewhereError(PixelwiseError):
    """Ends one process of a distributed run silently because another process reports the error."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


class Fault(str):
    """One line of an InputError together with its kind and file, so that faults can be grouped.

    Args:
        kind: An id such as `image-without-mask`.
        path: The file or folder at fault.
        text: What is wrong and the remedy. The path is prepended.
    """

    kind: str
    path: Path

    def __new__(cls, kind: str, path: Path, text: str) -> Fault:
        fault = super().__new__(cls, f"{path}: {text}")
        fault.kind, fault.path = kind, path
        return fault


_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


@contextmanager
def defer_errors() -> Iterator[None]:
    """Wrap a check whose failure need not stop the work: `collect_problems` gathers its errors."""
    collected = _collected.get()
    try:
        yield
    except InputError as error:
        if collected is None:
            raise
        collected += error.problems


def raise_problems(problems: Sequence[str]) -> None:
    """Raise InputError if there are any problems; `collect_problems` gathers them instead."""
    with defer_errors():
        if problems:
            raise InputError(*problems)


@contextmanager
def collect_problems() -> Iterator[list[str]]:
    """Gather the problems of `defer_errors` checks in a list instead of stopping at the first."""
    problems: list[str] = []
    token = _collected.set(problems)
    try:
        yield problems
    finally:
        _collected.reset(token)


# Packages of the `train` extra without which a call cannot work at all, by the name to import.
_TRAINING_PACKAGES = {"torch": "PyTorch", "lightning_fabric": "Lightning Fabric"}


@contextmanager
def explain_missing_packages() -> Iterator[None]:
    """Turn a failed import of PyTorch into one line that names the command to install it.

    Raises:
        MissingPackageError: If a package of the `train` extra is imported but not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = _TRAINING_PACKAGES.get((error.name or "").partition(".")[0])
        if package is None:
            raise
        raise MissingPackageError(
            f"this needs {package}, which is not installed: run pip install '.[train]' in the "
            "clone of pixelwise"
        ) from error
