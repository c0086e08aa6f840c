"""NumPy arrays: images, and masks of class numbers, RGB, or one channel a class (one-hot)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import MAX_CHANNELS
from pixelwise.errors import InputError
from pixelwise.file_io import check_regular

ARRAY_SUFFIXES = frozenset({".npy"})


@dataclass(frozen=True)
class ArrayFile:
    """A mask in a .npy file: see `MaskSource`.

    (H, W) are numbers from 0 to 65535; (H, W, C) or (C, H, W) of 0 and 1 are one channel a class,
    exactly one of them set at every pixel, and so are those of 0 and 255 that are not (H, W, 3);
    other (H, W, 3) of uint8 are RGB.
    """

    path: Path

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        stored = load_array(self.path)
        if stored.ndim not in {2, 3} or stored.size == 0:
            raise InputError(
                f"{self.path}: has the shape {stored.shape}: save (H, W) class numbers, or (H, W, "
                "C) with one channel a class"
            )
        if stored.ndim == 3 and stored.shape[:2] != size and stored.shape[1:] == size:
            stored = np.moveaxis(stored, 0, 2)
        return as_mask(stored, self.path)


def as_mask(stored: NDArray[Any], path: Path) -> NDArray[Any]:
    """What a mask's array means, (H, W) or (H, W, C): class numbers, RGB, or one-hot channels.

    Raises InputError where it is none of them.
    """
    if stored.ndim == 2:
        return _as_numbers(stored, path)
    present = set(np.unique(stored).tolist())
    colored = stored.shape[2] == 3 and stored.dtype == np.uint8
    if present <= {0, 1} or (present <= {0, 255} and not colored):
        return _from_channels(stored != 0, path)
    if colored:
        return stored
    raise InputError(
        f"{path}: its {stored.shape[2]} channels hold other values than 0 and 1: save the class of "
        "each pixel (argmax) as (H, W)"
    )


def _as_numbers(stored: NDArray[Any], path: Path) -> NDArray[Any]:
    if stored.dtype.kind not in "bui":
        raise InputError(f"{path}: holds {stored.dtype}: save the class numbers as uint8")
    low, high = (int(stored.min()), int(stored.max())) if stored.size else (0, 0)
    if low < 0 or high > 65535:
        raise InputError(
            f"{path}: holds {low if low < 0 else high}: class numbers from 0 to 65535 are allowed, "
            "255 for what is left out"
        )
    return stored.astype(np.uint16 if high > 255 else np.uint8)


def _from_channels(members: NDArray[np.bool_], path: Path) -> NDArray[np.uint8]:
    if members.shape[2] > 255:
        raise InputError(f"{path}: has {members.shape[2]} channels: 255 are allowed")
    count = members.sum(axis=2)
    wrong = np.argwhere(count != 1)
    if len(wrong):
        row, column = (int(place) for place in wrong[0])
        raise InputError(
            f"{path}: {int(count[row, column])} channels are set at row {row}, column {column}: "
            "one-hot masks have exactly one at every pixel; save (H, W) numbers"
        )
    return np.asarray(members.argmax(axis=2), dtype=np.uint8)


def read_array(path: Path) -> NDArray[Any]:
    """An image in a .npy file: (H, W, C) from (H, W) or (H, W, C), numbers of any real type.

    Raises InputError for other shapes and types, and for what looks like (C, H, W).
    """
    stored = load_array(path)
    if stored.dtype.kind not in "buif":
        raise InputError(f"{path}: holds {stored.dtype}: save whole or floating point numbers")
    if stored.ndim == 2:
        stored = stored[..., None]
    if stored.ndim != 3 or 0 in stored.shape:
        raise InputError(
            f"{path}: has the shape {stored.shape}: save an image as (H, W), or (H, W, C) with "
            "the channels last"
        )
    if stored.shape[0] < min(stored.shape[1:]) or stored.shape[2] > MAX_CHANNELS:
        raise InputError(
            f"{path}: has the shape {stored.shape}, which is not (H, W, C): save the channels "
            f"last, {MAX_CHANNELS} at most"
        )
    return stored.view(np.uint8) if stored.dtype == bool else stored


def load_array(path: Path) -> NDArray[Any]:
    """Any array of a .npy file. Raises InputError where it is none."""
    try:
        check_regular(path)
        # Mapped first: a header that promises more than the file holds is then refused.
        with np.errstate(over="ignore"):
            return np.array(np.lib.format.open_memmap(path, mode="r"))
    except Exception as error:  # numpy parses the header as Python, and raises what that provokes
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(
            f"{path}: is not an array that can be read ({reason}): save it with numpy.save"
        ) from error
