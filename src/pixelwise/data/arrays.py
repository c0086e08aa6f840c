"""Masks as NumPy arrays: class numbers, RGB, or one channel a class (one-hot)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError

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
        stored = self._load()
        if stored.ndim == 2:
            return self._as_numbers(stored)
        if stored.ndim != 3:
            raise InputError(
                f"{self.path}: has the shape {stored.shape}: save (H, W) class numbers, or (H, W, "
                "C) with one channel a class"
            )
        channels_first = stored.shape[:2] != size and stored.shape[1:] == size
        by_class = np.moveaxis(stored, 0, 2) if channels_first else stored
        present = set(np.unique(by_class).tolist())
        coloured = by_class.shape[2] == 3 and by_class.dtype == np.uint8
        if present <= {0, 1} or (present <= {0, 255} and not coloured):
            return self._from_channels(by_class != 0)
        if coloured:
            return by_class
        raise InputError(
            f"{self.path}: its {by_class.shape[2]} channels hold other values than 0 and 1: save "
            "the class of each pixel (argmax) as (H, W)"
        )

    def _load(self) -> NDArray[Any]:
        try:
            # Mapped first: a header that promises more than the file holds is then refused.
            return np.array(np.load(self.path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError, MemoryError) as error:
            raise InputError(
                f"{self.path}: is not an array that can be read ({str(error).splitlines()[0]}): "
                "save it with numpy.save"
            ) from error

    def _as_numbers(self, stored: NDArray[Any]) -> NDArray[Any]:
        if stored.dtype.kind not in "bui":
            raise InputError(f"{self.path}: holds {stored.dtype}: save the class numbers as uint8")
        low, high = (int(stored.min()), int(stored.max())) if stored.size else (0, 0)
        if low < 0 or high > 65535:
            raise InputError(
                f"{self.path}: holds {low if low < 0 else high}: class numbers from 0 to 65535 are "
                "allowed, 255 for what is left out"
            )
        return stored.astype(np.uint16 if high > 255 else np.uint8)

    def _from_channels(self, members: NDArray[np.bool_]) -> NDArray[np.uint8]:
        if members.shape[2] > 255:
            raise InputError(f"{self.path}: has {members.shape[2]} channels: 255 are allowed")
        count = members.sum(axis=2)
        wrong = np.argwhere(count != 1)
        if len(wrong):
            row, column = (int(place) for place in wrong[0])
            raise InputError(
                f"{self.path}: {int(count[row, column])} channels are set at row {row}, column "
                f"{column}: one-hot masks have exactly one at every pixel; save (H, W) numbers"
            )
        return np.asarray(members.argmax(axis=2), dtype=np.uint8)
