"""Where the results of a job are: a folder, or an address in an object store."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pixelwise.file_io import atomic, make_folder
from pixelwise.inference.batch.result_mark import is_result
from pixelwise.overwriting import files_of_others
from pixelwise.storage.addresses import (
    as_address,
    fetch,
    in_parallel,
    join,
    list_remote,
    read_remote,
    upload,
    write_remote,
)

STATE = ".pixelwise-cluster"
TAR_MARK = b"pixelwise predict"
"""The comment in the header of the tar files of results."""


class Output:
    """The folder or address of the results, and of the files that describe the job.

    Args:
        out: A path or an address.
    """

    def __init__(self, out: str) -> None:
        self.address = as_address(out)
        self.text = self.address or out
        self.folder = Path(out).absolute()

    @property
    def state_folder(self) -> Path:
        """The folder of the state of a job in a local folder."""
        return self.folder / STATE

    def sizes(self) -> dict[str, int]:
        """Return the size of each file by name, without those of the job."""
        if self.address is not None:
            start = len(self.address.rstrip("/")) + 1
            return {file.address[start:]: file.size for file in list_remote(self.address)}
        try:
            with os.scandir(self.folder) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except OSError:
            return {}

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError if prediction did not write one of these existing files."""
        others = [name for name in names if self._is_of_others(name)]
        if others:
            paths = [Path(self.text) / name for name in others]
            raise files_of_others(paths, Path(self.text))

    def _is_of_others(self, name: str) -> bool:
        if self.address is None:
            return os.path.lexists(self.folder / name) and not _is_own(self.folder / name)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / name
            self.copy(name, copy)
            return not _is_own(copy)

    def scratch(self, owner: str) -> Path:
        """Return a new folder for work, from which `publish` can move files."""
        if self.address is not None:
            return Path(tempfile.mkdtemp(prefix="pixelwise-"))
        base = make_folder(self.state_folder / "work" / owner)
        return Path(tempfile.mkdtemp(dir=base))

    def remove_scratch(self, owner: str) -> None:
        """Remove what a killed process left behind."""
        if self.address is None:
            shutil.rmtree(self.state_folder / "work" / owner, ignore_errors=True)
            for parent in (self.state_folder / "work", self.state_folder):
                with suppress(OSError):
                    parent.rmdir()  # unless it holds something

    def publish(self, files: dict[str, Path], *, overwrite: bool) -> None:
        """Give files their final names, each completely or not at all.

        Raises:
            InputError: If that would replace a file that prediction did not write.
        """
        address = self.address
        if address is not None:
            in_parallel(lambda item: upload(item[1], join(address, item[0])), files.items())
            return
        if not overwrite:
            self.check(files)
        for name, path in files.items():
            path.replace(self.folder / name)

    def copy(self, name: str, target: Path) -> None:
        """Copy a result to a local path."""
        if self.address is not None:
            fetch(join(self.address, name), target)
        else:
            shutil.copyfile(self.folder / name, target)

    def read(self, name: str) -> bytes | None:
        """Return the content of a file of the job, or None if there is none."""
        if self.address is not None:
            return read_remote(join(self.address, f"{STATE}/{name}"))
        try:
            return (self.state_folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the job."""
        if self.address is not None:
            write_remote(join(self.address, f"{STATE}/{name}"), data)
            return
        make_folder((self.state_folder / name).parent)
        with atomic(self.state_folder / name) as side:
            side.write_bytes(data)

    def manifests(self) -> list[str]:
        """Return the names of the manifests of all jobs that wrote here."""
        if self.address is not None:
            found = [file.address for file in list_remote(join(self.address, STATE))]
        else:
            found = [path.name for path in self.state_folder.glob("manifest*")]
        names = [name.rpartition("/")[2] for name in found]
        return sorted(n for n in names if n.startswith("manifest") and n.endswith(".jsonl"))


def _is_own(path: Path) -> bool:
    if path.suffix == ".tar":
        with path.open("rb") as stream:
            return TAR_MARK in stream.read(2048)
    return is_result(path)
