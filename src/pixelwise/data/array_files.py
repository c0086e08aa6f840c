"""NumPy arrays: images, and masks of class values, RGB colors or one-hot channels."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.file_content import explain_non_image, missing_file, read_head
from pixelwise.data.pixel_format import MAX_CHANNELS
from pixelwise.errors import InputError
from pixelwise.file_io import check_regular

ARRAY_SUFFIXES = frozenset({".npy"})

header_lock = threading.Lock()
"""Held while NumPy parses a header as Python: CPython's parser can fail in several threads."""


@dataclass(frozen=True)
class ArrayFile:
    """A mask in a .npy file: see `MaskSource`.

    - (H, W): values from 0 to 65535.
    - (H, W, C) or (C, H, W) of 0 and 1: one channel per class, exactly one of them set at each
      pixel. The same with 0 and 255, unless it is (H, W, 3).
    - Any other (H, W, 3) of uint8: RGB.
    """

    path: Path

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        stored = load_array(self.path)
        if stored.ndim not in {2, 3} or stored.size == 0:
            raise InputError(
                f"{self.path}: the shape {stored.shape} is not a mask: save (H, W) class values, "
                "or (H, W, C) with one channel per class"
            )
        if stored.ndim == 3 and stored.shape[:2] != size and stored.shape[1:] == size:
            stored = np.moveaxis(stored, 0, 2)
        return as_mask(stored, self.path)


def as_mask(stored: NDArray[Any], path: Path) -> NDArray[Any]:
    """Interpret the array of a mask, (H, W) or (H, W, C): class values, RGB, or one-hot channels.

    Raises:
        InputError: If it is none of them.
    """
    if stored.ndim == 2:
        return _as_values(stored, path)
    present = set(np.unique(stored).tolist())
    is_rgb = stored.shape[2] == 3 and stored.dtype == np.uint8
    if present <= {0, 1} or (present <= {0, 255} and not is_rgb):
        return _from_one_hot(stored != 0, path)
    if is_rgb:
        return stored
    raise InputError(
        f"{path}: the {stored.shape[2]} channels hold other values than 0 and 1: save the class of "
        "each pixel (argmax) as (H, W)"
    )


def _as_values(stored: NDArray[Any], path: Path) -> NDArray[Any]:
    if stored.dtype.kind not in "bui":
        raise InputError(f"{path}: the type is {stored.dtype}: save the class values as uint8")
    low, high = (int(stored.min()), int(stored.max())) if stored.size else (0, 0)
    if low < 0 or high > 65535:
        raise InputError(
            f"{path}: the value {low if low < 0 else high} is out of range: class values from 0 to "
            "65535 are allowed, and 255 for ignored pixels"
        )
    return stored.astype(np.uint16 if high > 255 else np.uint8)


def _from_one_hot(members: NDArray[np.bool_], path: Path) -> NDArray[np.uint8]:
    if members.shape[2] > 255:
        raise InputError(
            f"{path}: {members.shape[2]} channels, 255 are allowed: save (H, W) class values"
        )
    count = members.sum(axis=2)
    wrong = np.argwhere(count != 1)
    if len(wrong):
        row, column = (int(index) for index in wrong[0])
        raise InputError(
            f"{path}: {int(count[row, column])} channels are set at row {row}, column {column}, "
            "but a one-hot mask has exactly one at each pixel: correct it, or save (H, W) values"
        )
    return np.asarray(members.argmax(axis=2), dtype=np.uint8)


def read_array(path: Path) -> NDArray[Any]:
    """Read an image from a .npy file.

    Returns:
        (H, W, C), from (H, W) or (H, W, C), of any real type.

    Raises:
        InputError: For other shapes and types, and for (C, H, W).
    """
    stored = load_array(path)
    if stored.dtype.kind not in "buif":
        raise InputError(
            f"{path}: the type is {stored.dtype}: save integers or floating-point numbers"
        )
    if stored.ndim == 2:
        stored = stored[..., None]
    if stored.ndim != 3 or 0 in stored.shape:
        raise InputError(
            f"{path}: the shape {stored.shape} is not an image: save (H, W), or (H, W, C) with the "
            "channels last"
        )
    if stored.shape[0] < min(stored.shape[1:]) or stored.shape[2] > MAX_CHANNELS:
        raise InputError(
            f"{path}: the shape {stored.shape} is not (H, W, C): save the channels last, at most "
            f"{MAX_CHANNELS}"
        )
    return stored.view(np.uint8) if stored.dtype == bool else stored


def load_array(path: Path) -> NDArray[Any]:
    """Read any array from a .npy file. Raises InputError if that fails."""
    try:
        check_regular(path)
        # Memory-mapping refuses a header that promises more than the file holds.
        with np.errstate(over="ignore"), header_lock:
            mapped = np.lib.format.open_memmap(path, mode="r")
        return np.array(mapped)
    except FileNotFoundError as error:
        raise missing_file(path) from error
    except Exception as error:  # a damaged header can raise anything in NumPy
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        with suppress(OSError):
            other = explain_non_image(read_head(path)) if path.is_file() else None
            if other is not None:
                raise InputError(f"{path}: {other}") from error
        raise InputError(
            f"{path}: not a readable array ({reason}): save it with numpy.save"
        ) from error
