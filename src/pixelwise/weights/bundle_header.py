"""The seal of a bundle or checkpoint: its SHA-256 and what it says of itself, without its tensors.

Reading it needs neither PyTorch nor the time that hashing takes: it tells one file from another and
does not prove that the tensors are whole (`pixelwise.weights.tensor_file` does).
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from pixelwise.errors import InputError

BUNDLE_KEY = "pixelwise"
BUNDLE_REMEDY = "give the best.safetensors or last.safetensors of a run"


def read_bundle_header(path: Path, *, key: str, kind: str, remedy: str) -> tuple[str, str]:
    """The SHA-256, in hexadecimal, and the JSON text.

    kind and remedy: for messages, as "bundle". Raises InputError for anything without this key.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a {kind}: {remedy}")
    if not path.exists():
        raise InputError(f"{path}: is not there: {remedy}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes): {remedy}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: is not a {kind}, or is cut off or damaged ({error}): {remedy}"
        ) from error
    if key not in metadata:
        raise InputError(f"{path}: is a safetensors file but not a pixelwise {kind}: {remedy}")
    digest, _, text = metadata[key].partition("\n")
    return digest, text


def bundle_digest(path: Path) -> str:
    """The SHA-256 that a bundle carries. Raises InputError where the file is no bundle."""
    return read_bundle_header(path, key=BUNDLE_KEY, kind="bundle", remedy=BUNDLE_REMEDY)[0]
