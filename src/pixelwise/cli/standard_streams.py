"""Standard output and error of the commands: what cannot be shown stops no work.

A full disk or a closed pipe behind standard output is reported once the work is done, and
characters that the encoding of a stream lacks are shown as escape sequences.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

BROKEN_PIPE = 141
"""Exit code if the reader of standard output, such as `head`, has closed it."""


@contextmanager
def standard_streams() -> Iterator[None]:
    """Guard the standard streams while a command runs, and end the process with its exit code."""
    _open_closed_streams()
    before = sys.stdout, sys.stderr
    raw, raw_error = _Tolerant(1, "w", closefd=False), _Tolerant(2, "w", closefd=False)
    output, error_output = _guard(sys.stdout, raw), _guard(sys.stderr, raw_error)
    sys.stdout, sys.stderr = output or before[0], error_output or before[1]
    code: Any = 0
    try:
        yield
    except SystemExit as end:
        code = end.code
    finally:
        for stream in (output, error_output):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
    if raw.error is not None and not code:
        code = _report(raw.error)
    sys.exit(code)


class _Tolerant(io.FileIO):
    """A stream that drops what it cannot write, and remembers the first error."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes


def _open_closed_streams() -> None:
    """Open the null device for closed streams, so that no file gets the number of one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number


def _guard(stream: TextIO | None, raw: _Tolerant) -> io.TextIOWrapper | None:
    """Return a stream that tolerates errors, in place of a standard stream of the process.

    Returns None for any other stream, such as that of a test.
    """
    if not isinstance(stream, io.TextIOWrapper):
        return None
    stream.reconfigure(errors="backslashreplace")
    if stream.fileno() != raw.fileno():
        return None
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _report(error: OSError) -> int:
    """Print why standard output is incomplete; return the exit code."""
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    print(
        f"pixelwise: error: standard output: cannot be written ({error.strerror}): free some disk "
        "space, or redirect it to another place; the other files are written",
        file=sys.stderr,
    )
    return 1
