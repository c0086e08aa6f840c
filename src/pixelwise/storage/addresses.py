"""Read, write and list the files behind addresses; every call that fails is tried again.

An address is a text such as `s3://bucket/folder/file.png`. A `Path` made from it has one slash
less, which `as_address` puts back, so that arguments of the command line may be paths.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pixelwise.errors import InputError, PixelwiseError, needs_package

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "hf": "huggingface_hub"}
"""The package that reads each kind of address; the extra has the name of the kind."""
_OTHER_NAMES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
_ADDRESS = re.compile(r"^(s3a?|gs|gcs|az|abfss?|hf|memory):/{1,2}(?=[^/])")
ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.5
"""The wait before the second attempt. It doubles with each further one."""
TRANSFERS = 16
"""Number of files that are transferred at the same time."""

T = TypeVar("T")
Result = TypeVar("Result")


class StorageError(PixelwiseError):
    """A file could not be read or written after several attempts. It may work later."""


@dataclass(frozen=True)
class RemoteFile:
    """A file behind an address.

    Args:
        address: Its address.
        size: Its size in bytes.
        tag: Changes when its content changes: the ETag or the time of the last change.
    """

    address: str
    size: int
    tag: str


def as_address(path: str | Path) -> str | None:
    """Return the address that a text or path stands for; None for a local path."""
    found = _ADDRESS.match(str(path))
    return None if found is None else f"{found[1]}://{str(path)[found.end() :]}"


def join(address: str, name: str) -> str:
    """Return the address of a file in a folder."""
    return f"{address.rstrip('/')}/{name}"


def list_remote(address: str, *, recursive: bool = False) -> list[RemoteFile]:
    """List the files in a folder, or those that a pattern with * matches, by address.

    Raises:
        InputError: If access is denied, or a package is missing.
        StorageError: If the store does not answer.
    """
    files, path, kind = open_store(address)

    def call() -> dict[str, dict[str, Any]]:
        files.invalidate_cache()
        if "*" in path:
            return dict(files.glob(path, detail=True))
        return dict(files.find(path, maxdepth=None if recursive else 1, detail=True))

    listed = attempt(address, "listed", call)
    return sorted(
        (
            RemoteFile(f"{kind}://{name.lstrip('/')}", int(info.get("size") or 0), _tag(info))
            for name, info in listed.items()
            if info.get("type") == "file" and not name.endswith("/")
        ),
        key=lambda file: file.address,
    )


def find_remote(address: str) -> RemoteFile | None:
    """Return the file at an address, or None if there is none."""
    files, path, _ = open_store(address)

    def call() -> dict[str, Any] | None:
        files.invalidate_cache()
        try:
            return dict(files.info(path))
        except FileNotFoundError:
            return None

    info = attempt(address, "read", call)
    if info is None or info.get("type") != "file":
        return None
    return RemoteFile(address, int(info.get("size") or 0), _tag(info))


def fetch(address: str, target: Path, *, size: int | None = None) -> None:
    """Copy a file to a local path, completely or not at all.

    Args:
        address: The file.
        target: The local file; its folder exists.
        size: The size that the file has. A read that ends earlier is tried again.

    Raises:
        InputError: If there is no such file, or access is denied.
        StorageError: If the store does not send it.
    """
    files, path, _ = open_store(address)
    side = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.part")

    def call() -> None:
        files.get_file(path, str(side))
        if size is not None and side.stat().st_size != size:
            raise OSError(f"only {side.stat().st_size} of {size} bytes arrived")

    try:
        attempt(address, "read", call)
        side.replace(target)
    finally:
        side.unlink(missing_ok=True)


def read_remote(address: str) -> bytes | None:
    """Return the content of a file, or None if there is none."""
    found = find_remote(address)
    if found is None:
        return None
    files, path, _ = open_store(address)

    def call() -> bytes:
        data = bytes(files.cat_file(path))
        if len(data) != found.size:
            raise OSError(f"only {len(data)} of {found.size} bytes arrived")
        return data

    return attempt(address, "read", call)


def upload(source: Path, address: str) -> None:
    """Copy a local file to an address; raise as `fetch` does."""
    files, path, _ = open_store(address)
    attempt(address, "written", lambda: files.put_file(str(source), path))


def write_remote(address: str, data: bytes) -> None:
    """Write a file; raise as `fetch` does."""
    files, path, _ = open_store(address)
    attempt(address, "written", lambda: files.pipe_file(path, data))


def in_parallel(function: Callable[[T], Result], items: Iterable[T]) -> list[Result]:
    """Return `function` of each item; several transfers run at the same time."""
    with ThreadPoolExecutor(TRANSFERS) as pool:
        return list(pool.map(function, items))


def attempt(address: str, what: str, call: Callable[[], Result]) -> Result:
    """Return the result of a call, which is repeated with growing pauses if it fails.

    Raises:
        InputError: If there is no such file, or access is denied: repeating would not help.
        StorageError: If every attempt fails.
    """
    for number in range(1, ATTEMPTS + 1):
        try:
            return call()
        except FileNotFoundError as error:
            raise InputError(f"{address}: does not exist: check the address") from error
        except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
            raise InputError(
                f"{address}: cannot be {what} ({_reason(error)}): check the address and the "
                "credentials"
            ) from error
        except Exception as error:  # each store raises errors of its own
            if number == ATTEMPTS:
                raise StorageError(
                    f"{address}: cannot be {what} after {ATTEMPTS} attempts ({_reason(error)}): "
                    "check the network and the credentials; the same command resumes from there"
                ) from error
        time.sleep(FIRST_WAIT_SECONDS * 2 ** (number - 1) * random.uniform(0.5, 1.5))
    raise AssertionError("unreachable")


def open_store(address: str) -> tuple[Any, str, str]:
    """Return the file system of an address, the path in it, and the kind of address.

    Raises:
        MissingPackageError: If the package for the kind is not installed.
    """
    kind = address.partition("://")[0]
    extra = _OTHER_NAMES.get(kind, kind)
    with needs_package(
        f"{address}: needs {PACKAGES.get(extra, 'fsspec')}, which is not installed: pip install "
        f"'pixelwise[{extra}]'"
    ):
        import fsspec

        # Not url_to_fs, to which `::` in a name would mean a chain of stores.
        store = fsspec.get_filesystem_class(kind)
        files = store(**store._get_kwargs_from_urls(address))
        path = store._strip_protocol(address)
    return files, str(path), kind


def check_addresses(addresses: Sequence[str]) -> None:
    """Raise MissingPackageError now if an address could not be opened later."""
    for address in addresses:
        open_store(address)


def _tag(info: dict[str, Any]) -> str:
    for key in ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created"):
        if info.get(key):
            return str(info[key])
    return ""


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return os.fsdecode(text.encode())[:200]
