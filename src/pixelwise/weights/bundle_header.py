"""The header of a bundle or checkpoint: its SHA-256 and its description, without the tensors.

Reading it needs neither PyTorch nor the time that hashing takes. It identifies a file, but does not
verify the tensors; `pixelwise.weights.tensor_file` does.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from pixelwise.errors import InputError

BUNDLE_KEY = "pixelwise"
BUNDLE_REMEDY = "give the best.safetensors or last.safetensors of a run"


def read_bundle_header(path: Path, *, key: str, kind: str, remedy: str) -> tuple[str, str]:
    """Read the header of a file written by `write_tensor_file`.

    Args:
        path: The file.
        key: Metadata entry that identifies the kind of file.
        kind: What the file should be, for error messages: "bundle", "checkpoint".
        remedy: What to do about an error, for error messages.

    Returns:
        The SHA-256 in hexadecimal, and the description as JSON text.

    Raises:
        InputError: If the file cannot be read or has no such entry.
    """
    if path.is_dir():
        best = path / "best.safetensors"
        remedy = f"give {best}" if kind == "bundle" and best.is_file() else remedy
        raise InputError(f"{path}: is a folder, not a {kind}: {remedy}")
    if not path.exists():
        raise InputError(f"{path}: does not exist: {remedy}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes): {remedy}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"{path}: is not a {kind}, or is cut off or damaged: {remedy}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}): {remedy}") from error
    if key not in metadata:
        raise InputError(f"{path}: is a safetensors file but not a pixelwise {kind}: {remedy}")
    digest, _, text = metadata[key].partition("\n")
    return digest, text


def is_bundle(path: Path) -> bool:
    """Return whether a file is a bundle, judged by its header alone."""
    try:
        with safe_open(path, framework="numpy") as file:
            return BUNDLE_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def bundle_digest(path: Path) -> str:
    """Return the SHA-256 stored in a bundle.

    Raises:
        InputError: If the file is not a bundle.
    """
    return read_bundle_header(path, key=BUNDLE_KEY, kind="bundle", remedy=BUNDLE_REMEDY)[0]
