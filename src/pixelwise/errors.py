"""Errors that the user can fix, kept apart from bugs in pixelwise itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path

_ADDRESS = re.compile(r"\b(https?|ftp|s3|gs|file):/(?=[^/\s])")
_names: dict[str, str] = {}


def name_folder(folder: Path, name: str) -> None:
    """Have messages call a folder by another name: the address of which it is a copy."""
    _names[str(folder)] = name


def shown(text: str) -> str:
    """Return a message with the names that `name_folder` gave to folders."""
    for folder, name in _names.items():
        text = text.replace(folder, name)
    return text


class PixelwiseError(Exception):
    """Base class of all errors that pixelwise raises on purpose.

    Attributes:
        problems: One line per problem. The commands and `str` print `collapse(problems)`.
        exit_code: Exit code of a command that ends with this error.
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        # A `Path` drops a slash of an address: show it as it was given.
        self.problems = tuple(
            problem if isinstance(problem, Fault) else _ADDRESS.sub(r"\1://", problem)
            for problem in problems
        )
        super().__init__("\n".join(collapse(self.problems)))


class InputError(PixelwiseError, ValueError):
    """A file, value or option that the user gave cannot be used.

    Each of `problems` is one line with the file or value, what is allowed, and the remedy.
    The commands exit with code 2.
    """

    exit_code = 2


class MissingPackageError(InputError, ImportError):
    """An optional package that this call needs is not installed."""


@contextmanager
def needs_package(message: str) -> Iterator[None]:
    """Raise MissingPackageError with this message if a package imported inside is missing."""
    try:
        yield
    except ImportError as error:
        raise MissingPackageError(message) from error


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


_MOST_EQUAL = 3
"""Number of equal problems that are not collapsed, and of the examples when they are."""
_VARYING = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"  # quoted values
    |\S*[/\\]\S*|\S+\.[A-Za-z]\w{1,4}\b      # paths and file names
    |\d[\d.]*                              # numbers""",
    re.VERBOSE,
)


def collapse(problems: Sequence[str]) -> list[str]:
    """Join problems that are equal except for names and numbers.

    Args:
        problems: One line per problem, `{file}: {what is wrong}: {remedy}`.

    Returns:
        The lines, in their order. Of more than three equal problems, the first is in full and is
        followed by their number and two more examples.
    """
    groups: dict[tuple[object, ...], list[tuple[str, list[str]]]] = {}
    for line in problems:
        path, separator, text = line.partition(": ")
        # Names may contain spaces: the stem of the file is replaced wherever it occurs.
        stem = Path(path).stem if separator else ""
        text = text.replace(stem, "0") if len(stem) > 1 else text
        key = (getattr(line, "kind", None), bool(separator), _VARYING.sub("0", text or path))
        groups.setdefault(key, []).append((line, [path, *_VARYING.findall(text)]))
    collapsed = []
    for lines in groups.values():
        if len(lines) <= _MOST_EQUAL:
            collapsed += [line for line, _ in lines]
            continue
        first, values = lines[0]
        examples = [_difference(values, others) for _, others in lines[1:_MOST_EQUAL]]
        more = " and ".join(dict.fromkeys(example for example in examples if example))
        more = f"; also {more}" if more else ""
        collapsed.append(f"{first} ({len(lines)} such problems{more})")
    return [shown(line) for line in collapsed]


def _difference(first: list[str], other: list[str]) -> str:
    """The first value of a line that differs from that of another line."""
    for one, two in zip(first, other, strict=False):
        if one != two:
            return Path(two).name if Path(two).parent == Path(one).parent else two
    return ""


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


def check_training_packages() -> None:
    """Raise MissingPackageError without importing PyTorch if a package of `train` is missing."""
    with explain_missing_packages():
        for name in _TRAINING_PACKAGES:
            if find_spec(name) is None:
                raise ModuleNotFoundError(name=name)
