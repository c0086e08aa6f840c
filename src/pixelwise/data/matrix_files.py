"""Masks in MATLAB files (.mat) and NumPy archives (.npz), which hold several variables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.array_files import as_mask, header_lock
from pixelwise.data.image_decoding import MAX_PIXELS
from pixelwise.errors import InputError
from pixelwise.file_io import check_regular

MATRIX_SUFFIXES = frozenset({".mat", ".npz"})

_MAX_BYTES = 8 * MAX_PIXELS

_MASK_NAME = re.compile(r"mask|label|seg|annot|truth|class|(?:^|[^a-z])gt(?:$|[^a-z])", re.I)


@dataclass(frozen=True)
class MatrixFile:
    """A mask in a variable of a .mat or .npz file: see `MaskSource`.

    Attributes:
        path: The file.
        variable: Name of the variable; fields of a structure follow a dot. None: the only
            two-dimensional array, or the only one whose name is that of a mask.
    """

    path: Path
    variable: str | None = None

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        arrays = self._arrays()
        name = self._choose(arrays, size)
        stored = arrays[name]
        if stored.dtype.kind == "f" and (stored == np.rint(stored)).all():
            stored = stored.astype(np.int64)  # MATLAB stores whole numbers as double by default
        try:
            return as_mask(stored, self.path)
        except InputError as error:
            raise InputError(*(f"{line} (variable {name})" for line in error.problems)) from error

    def chosen(self) -> str:
        """The name of the variable that is read. Raises InputError if it is not clear."""
        return self._choose(self._arrays(), (0, 0))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {n: array for n, array in _arrays(self._load()) if array.ndim in (2, 3)}

    def _choose(self, arrays: dict[str, NDArray[Any]], size: tuple[int, int]) -> str:
        """The name of the array to read."""
        if self.variable is not None:
            if self.variable not in arrays:
                raise InputError(
                    f"{self.path}: has no array {self.variable}: the arrays are "
                    f"{', '.join(arrays) or 'none'}"
                )
            return self.variable
        fitting = [name for name, array in arrays.items() if array.shape[:2] == size]
        candidates = fitting or list(arrays)
        if len(candidates) > 1:
            candidates = [name for name in candidates if _MASK_NAME.search(name.rpartition(".")[2])]
        if len(candidates) == 1:
            return candidates[0]
        names = ", ".join(arrays)
        if not names:
            raise InputError(f"{self.path}: holds no array of two dimensions: export the mask")
        raise InputError(
            f"{self.path}: holds several arrays ({names}): write `variable = "
            f'"{next(iter(arrays))}"`, or another of them, into data.toml of the dataset'
        )

    def _load(self) -> dict[str, Any]:
        try:
            check_regular(self.path)
            if self.path.suffix.lower() == ".npz":
                return _load_npz(self.path)
            from scipy.io import loadmat

            content = loadmat(self.path, squeeze_me=True, struct_as_record=True)
        except ImportError as error:
            raise InputError(
                f"{self.path}: reading .mat files needs scipy, which is not installed: pip install "
                "'pixelwise[sbd]'"
            ) from error
        except Exception as error:  # damaged files raise errors of any type
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self.path}: cannot be read ({reason}): restore the file, or save it again as a "
                "MATLAB file of version 7 or with numpy.savez"
            ) from error
        return {name: value for name, value in content.items() if not name.startswith("__")}


def _load_npz(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        with ZipFile(stream) as members:
            size = sum(member.file_size for member in members.infolist())
        if size > _MAX_BYTES:
            raise InputError(f"holds {size} bytes, at most {_MAX_BYTES} are allowed")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as archive, header_lock:
            return {name: archive[name] for name in archive.files}


def _arrays(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the numeric arrays, also those in the fields of structures, with their names."""
    for name, value in content.items():
        array = np.asarray(value)
        while array.dtype.kind == "O" and array.size == 1:  # a cell with a single element
            array = np.asarray(array.item())
        if array.dtype.names is not None and array.size == 1:
            fields = {field: array[field].reshape(-1)[0] for field in array.dtype.names}
            yield from _arrays(fields, f"{prefix}{name}.")
        elif array.dtype.kind in "buif":
            yield f"{prefix}{name}", array
