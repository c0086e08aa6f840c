"""One file over HTTP: goes on where it was cut off, and is never longer than it may be."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError, PixelwiseError
from pixelwise.file_io import not_writable

Progress = Callable[[str, int, int | None], None]
"""Called with (what is done, bytes done, bytes in all or None)."""

CHUNK = 1 << 20
TIMEOUT = 30.0
ATTEMPTS = 4
"""In a row without a single new byte; ..."""
PAUSE = 2.0
"""... the pause in seconds between them doubles each time."""
UNKNOWN_AT_MOST = 8 << 30
"""Bytes of a file whose size nobody has published."""


class NotFetchedError(PixelwiseError):
    """A file could not be had from the network."""


def download(
    urls: tuple[str, ...],
    target: Path,
    *,
    size: int | None,
    progress: Progress | None = None,
) -> None:
    """Fetch `target` from the first of `urls` that has it.

    What arrives is kept in TARGET.part, also on failure, and the next call goes on from there.
    size: bytes, where known; another size is refused before anything is written.

    Raises NotFetchedError with the last reason, InputError where the disk is full or not writable.
    """
    part = target.with_name(target.name + ".part")
    reason = ""
    for url in urls:
        failures = 0
        while failures < ATTEMPTS:
            before = _size(part)
            try:
                if _fetch(url, part, size, progress):
                    _move(part, target)
                    return
                reason = "the connection was cut"
            except _GoneError as error:
                reason = str(error)
                break
            except (OSError, http.client.HTTPException) as error:
                reason = _reason(error)
            failures = 0 if _size(part) > before else failures + 1
            if failures < ATTEMPTS:
                time.sleep(PAUSE * 2**failures)
    raise NotFetchedError(reason)


class _GoneError(Exception):
    """This address does not have the file: no use in asking it again."""


def _fetch(url: str, part: Path, size: int | None, progress: Progress | None) -> bool:
    """One connection. True when the file is whole, as far as its length tells."""
    start = _size(part)
    if size is not None and start > size:
        part.unlink()
        start = 0
    if start and start == size:
        return True
    import pixelwise

    headers = {"User-Agent": f"pixelwise/{pixelwise.__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # there is nothing after what is here, and that is not the file
            part.unlink(missing_ok=True)
        elif 400 <= error.code < 500 and error.code not in (408, 429):
            raise _GoneError(f"{url} answers {error.code} {error.reason}") from error
        raise
    with response:
        start, total = _place(response, start)
        if size is not None and total is not None and total != size:
            raise _GoneError(f"{url} has {total} bytes, {size} were published")
        most = size or total or UNKNOWN_AT_MOST
        with _writing(part), part.open("ab") as stream:
            stream.truncate(start)
        done = start
        while chunk := response.read(CHUNK):
            if done + len(chunk) > most:
                part.unlink()
                raise _GoneError(f"{url} sends more than the {most} bytes that it may have")
            with _writing(part), part.open("ab") as stream:
                stream.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress("fetching", done, size or total)
    return done == (size or total or done)


def _place(response: Any, asked: int) -> tuple[int, int | None]:
    """Where the answer's first byte belongs, and the length of the whole file if it is said."""
    if response.status == 206:
        span, _, whole = response.headers.get("Content-Range", "").rpartition("/")
        first = span.removeprefix("bytes ").partition("-")[0]
        if first.strip() != str(asked):
            what = span or "unnamed"
            raise http.client.HTTPException(f"the server answers with another part: {what}")
        return asked, int(whole) if whole.strip().isdigit() else None
    length = response.headers.get("Content-Length", "")  # 200: all of it, from the start
    return 0, int(length) if length.isdigit() else None


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    """The disk's faults, told apart from the network's."""
    try:
        yield
    except OSError as error:
        raise not_writable(part, error) from error


def _move(part: Path, target: Path) -> None:
    with _writing(target):
        part.replace(target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return " ".join(str(text).split())


def check_room(folder: Path, needed: int) -> None:
    """Raise InputError where `folder`'s disk has fewer free bytes than `needed`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: has {free / 2**30:.1f} GiB of room, at least {needed / 2**30:.1f} GiB are "
            "needed: make room, or choose another place with --to"
        )


def digest_of(path: Path, algorithm: str, progress: Progress | None = None) -> str:
    """The digest of a file in hexadecimal."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    size, done = path.stat().st_size, 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress("checking", done, size)
    return digest.hexdigest()
