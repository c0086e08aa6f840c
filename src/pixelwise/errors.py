"""The errors that a person can mend, told apart from our own bugs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path


class PixelwiseError(Exception):
    """Base of all errors that pixelwise raises on purpose.

    problems: a line for each fault; the commands print them all. exit_code: of the command.
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class InputError(PixelwiseError, ValueError):
    """Something that was given is not usable: a file, a value, an option.

    Each of `problems` is one line: the file or the value, what is allowed, the remedy. The commands
    exit with code 2.
    """

    exit_code = 2


class ReportedElsewhereError(PixelwiseError):
    """Ends this process of a run of several without a line, for another one says why."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


class Fault(str):
    """One line of an InputError that also tells its kind and its file, for those who sort faults.

    kind: an id such as `image-without-mask`.
    """

    kind: str
    path: Path

    def __new__(cls, kind: str, path: Path, text: str) -> Fault:
        fault = super().__new__(cls, f"{path}: {text}")
        fault.kind, fault.path = kind, path
        return fault


_kept: ContextVar[list[str] | None] = ContextVar("kept", default=None)


@contextmanager
def tolerable() -> Iterator[None]:
    """Around a check whose fault need not end the work: inside `collecting` it is kept instead."""
    kept = _kept.get()
    try:
        yield
    except InputError as error:
        if kept is None:
            raise
        kept += error.problems


def refuse(problems: Sequence[str]) -> None:
    """Raise InputError for `problems`, if there are any; inside `collecting` they are kept."""
    with tolerable():
        if problems:
            raise InputError(*problems)


@contextmanager
def collecting() -> Iterator[list[str]]:
    """Gather the `tolerable` faults of what is called inside, which goes on with the rest."""
    problems: list[str] = []
    token = _kept.set(problems)
    try:
        yield problems
    finally:
        _kept.reset(token)
