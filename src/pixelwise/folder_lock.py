"""A lock on a folder: two processes must not write results or a run into it at the same time.

The lock is the file FOLDER/.pixelwise.lock. On one machine the kernel decides (flock): the lock
ends with its process, however that ends, and what the file says does not matter. Where the kernel
cannot decide, the file does. It names the machine and the process, and the owner renews its
modification time every RENEW_SECONDS. Its lock is stale if the process is gone, which can be seen
on the same machine only, or if it was not renewed for STALE_SECONDS. Both times are those of the
file system, so that the clocks of two machines need not agree.

A process that is killed while it takes or releases the lock leaves an empty file, a stale one, or
none. The next process takes over any of these.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pixelwise.errors import InputError
from pixelwise.file_io import make_folder, not_writable, write_errors

NAME = ".pixelwise.lock"
RENEW_SECONDS = 20.0
STALE_SECONDS = 120.0
FORK_SECONDS = 1.0
"""How long to wait for a process that was forked from a killed owner to close its handle."""
WAIT_SECONDS = 0.2
"""How long to wait before a folder that another process has locked is tried again."""
DOUBT_SECONDS = 0.5
"""How long to wait, where the kernel cannot decide, to see which of two processes came last."""


class FolderBusyError(InputError):
    """Another process, or another thread of this one, has locked the folder."""


class FolderLock:
    """Locks a folder within `with`.

    Args:
        folder: The folder. If it does not exist yet, call `take` when it is to be created.
        command: The command that writes there, for the message to another process.

    Raises:
        FolderBusyError: If another process, or another thread of this one, has locked the folder.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command = folder, command
        self.path = folder / NAME
        self._handle: int | None = None
        self._released = threading.Event()

    def __enter__(self) -> FolderLock:
        self.take_if_exists()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def take_if_exists(self) -> None:
        """Lock the folder if there is one. Raises InputError as `take` does."""
        if self.folder.is_dir():
            self.take()

    def take(self) -> None:
        """Create the folder if necessary, and lock it unless this object has locked it already.

        Raises:
            InputError: If another process has locked the folder, or it cannot be written.
        """
        if self._handle is not None:
            return
        make_folder(self.folder)
        with write_errors(self.folder):
            self._handle = self._take()
        self._released.clear()
        _held.add(self)
        threading.Thread(target=self._renew, args=(self._handle,), daemon=True).start()

    def take_when_free(self) -> None:
        """Lock the folder as `take` does, after other processes have unlocked it."""
        while True:
            try:
                return self.take()
            except FolderBusyError:
                time.sleep(WAIT_SECONDS)

    def release(self) -> None:
        """Unlock the folder. Does nothing if it is not locked."""
        if self._handle is None:
            return
        self._released.set()
        _held.discard(self)
        with suppress(OSError):
            if _is_same_file(self.path, self._handle):  # else another process has taken over
                self.path.unlink()
        self.forget()

    def owner(self) -> str:
        """Return the command of the process that has locked the folder; empty if none has."""
        try:
            handle = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise not_writable(self.folder, error) from error
        try:
            decided = bool(_lock_by_kernel(handle))
            owner = _read_owner(handle)
            alive = _is_alive(owner, self._age(handle), decided=decided)
            return str(owner.get("command", "")) if alive else ""
        finally:
            os.close(handle)

    def forget(self) -> None:
        """Close the handle without unlocking for other processes that share it, as after a fork."""
        if self._handle is not None:
            with suppress(OSError):
                os.close(self._handle)
            self._handle = None

    def _take(self) -> int:
        deadline = time.monotonic() + FORK_SECONDS
        while True:
            try:
                handle, is_new = _open(self.path)
            except FileNotFoundError:  # its owner has just released it
                continue
            try:
                decided = _lock_by_kernel(handle)
                if decided is None:
                    owner = _read_owner(handle)
                    gone = not _is_alive(owner, self._age(handle), decided=False)
                    if gone and time.monotonic() < deadline:
                        os.close(handle)
                        time.sleep(FORK_SECONDS / 20)
                        continue
                    raise self._busy(owner)
                if not _is_same_file(self.path, handle):
                    os.close(handle)
                    continue
                owner = _read_owner(handle)
                if not is_new and _is_alive(owner, self._age(handle), decided=decided):
                    raise self._busy(owner)
                record = _write_owner(handle, self.command)
                if not decided:
                    time.sleep(DOUBT_SECONDS)
                    if _read_owner(handle) != record:
                        raise self._busy(_read_owner(handle))
            except BaseException:
                with suppress(OSError):
                    os.close(handle)
                raise
            return handle

    def _age(self, handle: int) -> float:
        """Return the seconds since the lock was renewed, by the clock of the file system."""
        probe = self.folder / f".pixelwise.{secrets.token_hex(4)}.probe"
        probe.touch(exist_ok=False)
        try:
            return probe.stat().st_mtime - os.fstat(handle).st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _busy(self, owner: dict[str, Any]) -> FolderBusyError:
        who = f"another pixelwise {owner.get('command', 'command')}"
        if owner:
            who += f" (process {owner.get('process')} on {owner.get('host')})"
        wait = "wait until it ends"
        if owner and owner.get("boot") != _boot_id():
            wait += f" (if it was killed, its lock ends after {STALE_SECONDS:.0f} seconds)"
        return FolderBusyError(
            f"{self.folder}: {who} is writing there: {wait}, or choose another folder"
        )

    def _renew(self, handle: int) -> None:
        while not self._released.wait(RENEW_SECONDS):
            with suppress(OSError):
                os.utime(handle)


def _open(path: Path) -> tuple[int, bool]:
    """Return a handle of the lock file, and whether this call created it."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
    except FileExistsError:
        return os.open(path, os.O_RDWR), False


def _lock_by_kernel(handle: int) -> bool | None:
    """Return True if the kernel locks the file for us, None for another, False if it cannot."""
    if os.name != "posix":
        return False
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:  # some network file systems
        return False
    return True


def _is_alive(owner: dict[str, Any], age: float, *, decided: bool) -> bool:
    """Return whether the owner that a lock file names still has the lock.

    Args:
        owner: What the file says; empty if it says nothing.
        age: Seconds since the owner renewed the lock.
        decided: Whether the kernel has locked the file for this process.
    """
    if owner.get("boot") == _boot_id() or (not owner and decided):
        if decided:
            return False
        if owner.get("processes") == _process_namespace():
            return _started(owner.get("process")) == owner.get("started")
    return age < STALE_SECONDS


def _write_owner(handle: int, command: str) -> dict[str, Any]:
    record = {
        "command": command,
        "host": platform.node(),
        "boot": _boot_id(),
        "processes": _process_namespace(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
        "token": secrets.token_hex(8),
    }
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps(record).encode())
    os.fsync(handle)
    return record


def _read_owner(handle: int) -> dict[str, Any]:
    """Return what a lock file says; nothing if it is empty or half written."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        record = json.loads(os.read(handle, 1 << 16))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _is_same_file(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _boot_id() -> str:
    """Return what is the same for two processes exactly if they run on the same kernel."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


def _process_namespace() -> str:
    """Return the name of the set in which process numbers are unique; containers have their own."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(process: object) -> str | None:
    """Return when a process started, in the kernel's units; None if it is gone."""
    if not isinstance(process, int):
        return None
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]
    except OSError:
        if os.name != "posix" or Path("/proc/self/stat").exists():
            return None
    try:  # a system without /proc
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


_held: set[FolderLock] = set()


def _forget_all() -> None:
    """In a forked process: the lock must end with its owner, though others have its handle."""
    for lock in list(_held):
        lock.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
