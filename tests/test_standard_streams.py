"""Output that cannot be shown: the work is done, its files are written, and one line says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import sys
from pathlib import Path
from pixelwise.cli.console import command, print_line
from pixelwise.cli.standard_streams import standard_streams

@command
def work():
    for number in range(3):
        print_line("W\\u00e4nde \\u72d7 \\U0001f3c0")
        print(f"{number}" * 9000)
        Path(f"{number}.txt").write_text("result")
    if len(sys.argv) > 1:
        raise OSError(28, "No space left on device", "photos/x.png")

with standard_streams():
    work()
"""


def run(folder: Path, *arguments: str, encoding: str = "utf-8", **options: Any) -> Any:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env=environment,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def is_done(folder: Path) -> bool:
    return all((folder / f"{number}.txt").read_text() == "result" for number in range(3))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "ascii:strict"])
def test_characters_that_the_encoding_lacks_are_escaped(encoding: str, tmp_path: Path) -> None:
    done = run(tmp_path, encoding=encoding)
    assert (done.returncode, done.stderr, is_done(tmp_path)) == (0, b"", True)
    assert b"\\u72d7 \\U0001f3c0" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line_at_the_end(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(tmp_path, stdout=full)
    assert (done.returncode, is_done(tmp_path)) == (1, True)
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(
        "pixelwise: error: standard output: cannot be written (No space left on device): free"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_both_streams_stops_nothing(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(tmp_path, stdout=full, stderr=full)
    assert (done.returncode, is_done(tmp_path)) == (1, True)


def test_a_closed_pipe_stops_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run(tmp_path, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr, is_done(tmp_path)) == (141, b"", True)


def close(*numbers: int) -> Callable[[], None]:
    def close_all() -> None:
        for number in numbers:
            os.close(number)

    return close_all


@pytest.mark.parametrize("numbers", [(1,), (2,), (1, 2), (0, 1, 2)])
def test_closed_streams_stop_nothing(numbers: tuple[int, ...], tmp_path: Path) -> None:
    done = run(tmp_path, preexec_fn=close(*numbers))
    assert (done.returncode, is_done(tmp_path)) == (0, True)


def test_an_error_of_the_system_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "fail")
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "pixelwise: error: photos/x.png: No space left on device: check the path, its permissions "
        "and the free disk space, and run the command again\n"
    )
