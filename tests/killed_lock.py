"""Take and release a folder's lock in processes that kill themselves. Not a test.

python killed_lock.py FOLDER DECIDED: a process is killed after each line of `pixelwise.folder_lock`
in turn. After each kill, this process must be able to take the lock. DECIDED says whether the
kernel may decide. Prints the number of kills.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from pixelwise import folder_lock
from pixelwise.errors import InputError
from pixelwise.folder_lock import FolderLock


def die_at(line: int) -> None:
    """Kill this process when it executes the line-th line of the module."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != folder_lock.__file__:
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def main(folder: Path, *, decided: bool) -> None:
    folder_lock.STALE_SECONDS, folder_lock.DOUBT_SECONDS = 0.2, 0.01
    if not decided:
        folder_lock._lock_by_kernel = lambda handle: False
    kills = 0
    while True:
        child = os.fork()
        if child == 0:
            die_at(kills + 1)
            with FolderLock(folder, "train") as lock:
                lock.take()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        kills += 1
        deadline = time.monotonic() + (0 if decided else 5)
        while True:
            try:
                with FolderLock(folder, "train"):
                    assert (folder / folder_lock.NAME).exists()
                break
            except InputError:
                if time.monotonic() > deadline:
                    raise
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]), decided=sys.argv[2] == "decided")
