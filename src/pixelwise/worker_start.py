"""Check that worker processes can be started, before a run is written.

Where processes are spawned (macOS, Windows), each imports the script of the program. A script that
trains at import would start processes without end, which Python prevents with an error in the
child; the parent would wait for that child forever.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.process import current_process

from pixelwise.errors import InputError

_CHECKING = "PIXELWISE_CHECKING_WORKERS"
_GUARD = 'put the call under `if __name__ == "__main__":`'


def end_import_by_child() -> None:
    """End this process if it is being started and imports a script that trains without a guard."""
    if getattr(current_process(), "_inheriting", False):
        raise SystemExit(
            1  # the parent reports it
            if _CHECKING in os.environ
            else f"pixelwise: error: a child process trains when it imports the script: {_GUARD}"
        )


def check_workers_start(workers: int) -> None:
    """Start a process that does nothing.

    Raises:
        InputError: If worker processes cannot be started in this program.
    """
    if workers == 0:
        return
    if current_process().daemon:
        raise InputError(
            f"data.workers = {workers}: a daemon process cannot start workers: set data.workers=0"
        )
    if multiprocessing.get_start_method() == "fork":
        return
    os.environ[_CHECKING] = "1"
    try:
        process = multiprocessing.Process(target=int)
        process.start()
        process.join()
        failed = process.exitcode != 0
    except (OSError, EOFError, RuntimeError):  # the fork server has ended
        failed = True
    finally:
        del os.environ[_CHECKING]
    if failed:
        raise InputError(
            f"data.workers = {workers}: worker processes import the script that trains, and end "
            f"there: {_GUARD}, or set data.workers=0"
        )
