"""Runs variants of a measurement in turn, each in a new process, and prints a table.

A variant that fails is left out from then on: what the others measured is printed, and `finish`
says what failed and why, with the end of its error output, and exits with 1. Scripts that measure
in their own way use `attempt` and `run` for this.

A variant is a function that prepares, and returns a callable for one unit of work with the number
of images it handles. Processes are new because the comparison includes process settings. They take
turns because the speed of a machine drifts. The table has the median and the range.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

Work = Callable[[], object]
Prepare = Callable[[], tuple[Work, int]]
LAST_LINES = 20  # of the error output of a command that failed

failures: dict[str, str] = {}


class CommandError(Exception):
    """A command failed; the text is its exit code and the end of its error output."""


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its output.

    Raises:
        CommandError: If it cannot be started or ends with another exit code than 0.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    except OSError as error:
        raise CommandError(f"{command[0]}: cannot be started: {error.strerror}") from error
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-LAST_LINES:])
        raise CommandError(f"exit code {done.returncode}\n{last}")
    return done.stdout


@contextmanager
def attempt(name: str) -> Iterator[None]:
    """Note an exception in `failures` under this name instead of raising it."""
    try:
        yield
    except Exception as error:
        explained = isinstance(error, CommandError) or hasattr(error, "problems")  # PixelwiseError
        text = str(error) if explained else traceback.format_exc()
        failures[name] = text.rstrip()
        print(f"{name}: failed, see the end", file=sys.stderr)


def finish() -> None:
    """Say what failed and why, and exit with 1 if anything did."""
    sys.stdout.flush()
    for name, text in failures.items():
        print(f"\n{name}: FAILED: {text}", file=sys.stderr)
    if failures:
        sys.exit(1)


def main(
    title: str,
    variants: dict[str, Prepare],
    *,
    units: int,
    peers: dict[str, list[str]],
    warm_up: int = 2,
) -> None:
    """Print a table of `variants` and `peers`; unknown options are passed to each process.

    Args:
        title: The title of the table.
        variants: What is measured, by name.
        units: The number of timed units of work in each process.
        peers: The command line of another interpreter (--peer), by name.
        warm_up: The number of units before timing starts.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--repeats", type=int, default=3, help="processes per variant")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument(
        "--busy", type=int, default=0, help="number of busy processes at the same time"
    )
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter with smp installed")
    arguments, more = parser.parse_known_args()
    if arguments.worker:
        work, images = variants[arguments.worker]()
        print(json.dumps(measure(work, images, units=units, warm_up=warm_up)))
        sys.exit()
    script = [sys.executable, str(Path(sys.argv[0]).resolve()), *more, "--worker"]
    commands = {name: [*script, name] for name in variants}
    if arguments.peer:
        commands |= {name: [arguments.peer, *rest] for name, rest in peers.items()}
    results: dict[str, list[dict[str, float]]] = {}
    for repeat in range(arguments.repeats):
        for name, command in commands.items():
            if name in failures:
                continue
            print(f"  {repeat + 1}/{arguments.repeats} {name}", file=sys.stderr)
            with busy(arguments.busy), attempt(name):
                answer = json.loads(run(command).splitlines()[-1])
                results.setdefault(name, []).append(answer)
    beside = f", next to {arguments.busy} busy processes" if arguments.busy else ""
    print(f"\n{title}{beside}")
    print(f"{machine()}, {date.today().isoformat()}, {arguments.repeats} processes each, median\n")
    first = results.get(next(iter(commands)), [])
    baseline = statistics.median(r["images_per_second"] for r in first) if first else math.nan
    columns = f"{'images/s':>9} {'min..max':>15} {'s/image':>8} {'system time':>12} {'ratio':>6}"
    print(f"{'':44} {columns}")
    for name in commands:
        if name not in results:
            print(f"{name:44}    failed")
            continue
        runs = results[name]
        rates = [r["images_per_second"] for r in runs]
        median = statistics.median(rates)
        system = statistics.median(r["system_fraction"] for r in runs)
        spread = f"{min(rates):.2f}..{max(rates):.2f}"
        ratio = median / baseline
        print(f"{name:44} {median:9.2f} {spread:>15} {1 / median:8.3f} {system:12.0%} {ratio:6.2f}")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep `count` cores busy, with one process each."""
    cores = sorted(os.sched_getaffinity(0), reverse=True)
    loop = "import os, sys; os.sched_setaffinity(0, [int(sys.argv[1])])\nwhile True: pass"
    neighbors = [
        subprocess.Popen([sys.executable, "-c", loop, str(core)]) for core in cores[:count]
    ]
    try:
        yield
    finally:
        for neighbor in neighbors:
            neighbor.kill()
            neighbor.wait()


def measure(work: Work, images: int, *, units: int, warm_up: int = 2) -> dict[str, float]:
    """Time `units` after `warm_up` units, with the fraction of CPU time in the kernel."""
    for _ in range(warm_up):
        work()
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(units):
        work()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {
        "images_per_second": units * images / seconds,
        "system_fraction": system / max(1e-9, user + system),
    }


def machine() -> str:
    """Describe the processor, its cores and the system."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"
