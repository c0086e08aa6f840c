"""Which network a path holds, told without opening it."""

from __future__ import annotations

from pathlib import Path

from pixelwise.files import sha256
from pixelwise.inference.exported import DESCRIPTION, is_export
from pixelwise.seals import bundle_digest


def identity(path: Path) -> str:
    """A SHA-256 that tells this bundle or export from others. Raises InputError for what is none.

    A bundle carries its own; an export's description has those of its files.
    """
    return sha256(path / DESCRIPTION) if is_export(path) else bundle_digest(path)
