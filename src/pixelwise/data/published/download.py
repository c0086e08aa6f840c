"""Download of one file over HTTP that resumes after interruptions and limits the size."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError, PixelwiseError
from pixelwise.file_io import write_errors

Progress = Callable[[str, int, int | None], None]
"""Called with (activity, bytes processed, total bytes or None)."""

CHUNK = 1 << 20
TIMEOUT = 30.0
MAX_ATTEMPTS = 4
"""Successive attempts per URL that receive no new byte."""
PAUSE = 2.0
"""Seconds before the second attempt; doubled before each further one."""
MAX_UNKNOWN_SIZE = 8 << 30
"""Largest download, in bytes, of a file without a published size."""


OFFLINE = "PIXELWISE_OFFLINE"
"""The environment variable that forbids all downloads, unless it is empty or 0."""


def describe_progress(activity: str, done: int, total: int | None) -> str:
    """Describe a call of a `Progress`, such as `downloading: 12.0 of 97.8 MiB`."""
    whole = "" if total is None else f" of {total / 2**20:.1f}"
    return f"{activity}: {done / 2**20:.1f}{whole} MiB"


def is_offline() -> bool:
    """Return whether the environment forbids downloads."""
    return os.environ.get(OFFLINE, "") not in {"", "0"}


class DownloadError(PixelwiseError):
    """A file could not be downloaded."""


def download(
    urls: tuple[str, ...], target: Path, *, size: int | None, progress: Progress | None = None
) -> None:
    """Download `target` from the first of `urls` that provides it.

    Received bytes are kept in TARGET.part, also after a failure; the next call resumes from there.

    Args:
        urls: Addresses of the same bytes, in order of preference.
        target: File to create.
        size: Expected bytes; None if unknown. A file of another size is refused before its content
            is written.
        progress: Called with the activity, the bytes received so far and the total.

    Raises:
        DownloadError: If all addresses fail; with the last reason.
        InputError: If the disk is full or not writable.
    """
    if is_offline():
        raise DownloadError(f"{OFFLINE}={os.environ[OFFLINE]} forbids downloads")
    part = target.with_name(target.name + ".part")
    reason = "it has no address"
    for url in urls:
        failures = 0
        while failures < MAX_ATTEMPTS:
            before = size_of(part)
            try:
                if _receive(url, part, size, progress):
                    with write_errors(target):
                        part.replace(target)
                    return
                reason = "the connection was cut"
            except _UnavailableError as error:
                reason = str(error)
                break
            except (OSError, http.client.HTTPException) as error:
                reason = _reason(error)
                if _is_unreachable(error) and not size_of(part):
                    break  # without a network, waiting does not help
            failures = 0 if size_of(part) > before else failures + 1
            if failures < MAX_ATTEMPTS:
                time.sleep(PAUSE * 2**failures)
    raise DownloadError(reason)


class _UnavailableError(Exception):
    """The URL does not provide the file; retrying is useless."""


def _receive(url: str, part: Path, size: int | None, progress: Progress | None) -> bool:
    """Receive bytes over one connection; returns whether the file has its full length."""
    start = size_of(part)
    if size is not None and start > size:
        part.unlink()
        start = 0
    if start and start == size:
        return True
    with _open(url, part, start) as response:
        start, total = _range(response, start)
        if size is not None and total is not None and total != size:
            raise _UnavailableError(f"{url} has {total} bytes, but the published size is {size}")
        limit = size or total or MAX_UNKNOWN_SIZE
        with write_errors(part), part.open("ab") as stream:
            stream.truncate(start)
        done = start
        while chunk := response.read(CHUNK):
            if done + len(chunk) > limit:
                part.unlink()
                raise _UnavailableError(f"{url} sends more than the allowed {limit} bytes")
            with write_errors(part), part.open("ab") as stream:
                stream.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress("downloading", done, size or total)
    return done == (size or total or done)


def _open(url: str, part: Path, start: int) -> Any:
    """Request the bytes from `start` on."""
    import pixelwise

    headers = {"User-Agent": f"pixelwise/{pixelwise.__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the file ends before `start`: what was received is wrong
            part.unlink(missing_ok=True)
        elif 400 <= error.code < 500 and error.code not in (408, 429):
            raise _UnavailableError(f"{url} answers {error.code} {error.reason}") from error
        raise


def _range(response: Any, requested: int) -> tuple[int, int | None]:
    """Offset of the response's first byte, and the length of the whole file if it is given."""
    if response.status == 206:
        span, _, whole = response.headers.get("Content-Range", "").rpartition("/")
        first = span.removeprefix("bytes ").partition("-")[0]
        if first.strip() != str(requested):
            raise http.client.HTTPException(f"the server sends the wrong range: {span or 'none'}")
        return requested, int(whole) if whole.strip().isdigit() else None
    length = response.headers.get("Content-Length", "")  # 200: the whole file
    return 0, int(length) if length.isdigit() else None


def size_of(path: Path) -> int:
    """The size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0


def _is_unreachable(error: Exception) -> bool:
    """Whether the name of the server cannot be resolved, or no route leads to it."""
    inner = getattr(error, "reason", error)
    return isinstance(inner, socket.gaierror) or (
        isinstance(inner, OSError) and inner.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    )


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return " ".join(str(text).split())


def check_free_space(
    folder: Path, needed: int, *, remedy: str = "choose another folder with --to"
) -> None:
    """Raise InputError if the disk of `folder` has fewer than `needed` free bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: {free / 2**30:.1f} GiB are free, but at least {needed / 2**30:.1f} GiB are "
            f"needed: free some space, or {remedy}"
        )


def digest_of(path: Path, algorithm: str, progress: Progress | None = None) -> str:
    """The hexadecimal digest of a file."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    size, done = path.stat().st_size, 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress("verifying", done, size)
    return digest.hexdigest()
