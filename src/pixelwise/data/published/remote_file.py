"""A published file: where it is, how it is verified, and what to do without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelwise.data.published.download import (
    OFFLINE,
    DownloadError,
    Progress,
    digest_of,
    download,
    is_offline,
)
from pixelwise.errors import InputError

DIGEST_NAMES = {"sha256": "SHA-256", "sha384": "SHA-384", "sha1": "SHA-1", "md5": "MD5"}


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file to download.

    Attributes:
        file: File name.
        urls: Addresses of the same bytes, in order of preference.
        size: Number of bytes; None if nobody has published it.
        digest: Hexadecimal digest by `algorithm`, or the part of its beginning that is published;
            empty if nobody has published one.
        source: Who published the digest.
        algorithm: Hash function of the digest, a key of DIGEST_NAMES.
    """

    file: str
    urls: tuple[str, ...]
    size: int | None = None
    digest: str = ""
    source: str = ""
    algorithm: str = "sha256"

    @property
    def digest_name(self) -> str:
        return DIGEST_NAMES[self.algorithm]

    @property
    def described_digest(self) -> str:
        """Such as `SHA-256 11ad3fa6...`."""
        if not self.digest:
            return "no published digest"
        complete = (
            len(self.digest) >= {"sha256": 64, "sha384": 96, "sha1": 40, "md5": 32}[self.algorithm]
        )
        return f"{self.digest_name} {self.digest}{'' if complete else '...'}"

    def download(self, folder: Path, progress: Progress | None = None) -> Path:
        """Download the file into a folder that exists, and verify it.

        Raises:
            DownloadError: If no address provides it.
            InputError: If it is not the published file, which is then removed, or the disk is full.
        """
        path = folder / self.file
        download(self.urls, path, size=self.size, progress=progress)
        self.verify(path, progress, downloaded=True)
        return path

    def verify(
        self, path: Path, progress: Progress | None = None, *, downloaded: bool = False
    ) -> None:
        """Raise InputError if `path` is not the published file; remove it if it was downloaded."""
        if not self.digest:
            return
        digest = digest_of(path, self.algorithm, progress)
        if digest.startswith(self.digest):
            return
        if downloaded:  # otherwise the next call would resume from wrong bytes
            path.unlink()
        raise InputError(
            f"{path}: is not the published file ({self.digest_name} {digest}, expected "
            f"{self.digest}): "
            + (
                "the file was removed; run the command again"
                if downloaded
                else "replace or remove it"
            )
        )


def manual_instructions(
    name: str, missing: Sequence[RemoteFile], folder: Path, reason: str
) -> DownloadError:
    """The error for a failed download: the reason, and which files to put where instead."""
    lines = []
    for file in missing:
        size = "size unknown" if file.size is None else f"{file.size} bytes"
        lines.append(
            f"{file.urls[0]} ({size}, {file.described_digest}): download it on another machine "
            f"and save it as {folder / file.file}"
        )
    retry = f"unset {OFFLINE}" if is_offline() else "run the same command again to resume it"
    return DownloadError(
        f"{name}: the download of {missing[0].file} failed ({reason}): {retry}, or put these files "
        "in place by hand:",
        *lines,
        "then run the same command again: it uses these files and needs no network",
    )
