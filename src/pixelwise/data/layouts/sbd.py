"""SBD (Hariharan et al. 2011) as published: img/, cls/*.mat, train.txt and val.txt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.layouts.folder_names import first_names
from pixelwise.data.layouts.listed_pairs import ListedPairs
from pixelwise.data.layouts.split_lists import list_files, read_entries
from pixelwise.data.source import Source
from pixelwise.data.voc_palette import VOC_CLASSES
from pixelwise.errors import InputError, needs_package, raise_problems
from pixelwise.file_io import check_regular

DESCRIPTION = "SBD: img/, cls/ with .mat files, train.txt and val.txt (also inside dataset/)"

_MAT = frozenset({".mat"})


@dataclass(frozen=True)
class MatFile:
    """The class mask in one of SBD's MATLAB files."""

    path: Path

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        with needs_package(
            f"{self.path}: reading SBD's .mat files needs scipy, which is not installed: "
            "pip install 'scipy>=1.14'"
        ):
            from scipy.io import loadmat
        try:
            check_regular(self.path)
            content = loadmat(self.path, squeeze_me=True, struct_as_record=True)
            stored = np.asarray(content["GTcls"]["Segmentation"].item())
        except Exception as error:  # damaged files make scipy raise errors of any type
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self.path}: is not a class file of SBD ({reason}): restore the file"
            ) from error
        if stored.ndim != 2 or stored.dtype != np.uint8:
            raise InputError(
                f"{self.path}: GTcls.Segmentation is not a 2-D array of uint8: restore the file"
            )
        return stored


def detect(root: Path) -> bool:
    return _base(root) is not None


def _base(root: Path) -> Path | None:
    for base in (root, root / "dataset", root / "benchmark_RELEASE" / "dataset"):
        if (base / "img").is_dir() and first_names(base / "cls", _MAT):
            return base
    return None


def read(root: Path) -> Source:
    base = _base(root)
    assert base is not None  # guaranteed by detect
    pairs = ListedPairs(root, base / "img", base / "cls", _MAT, MatFile)
    lists = {split: (path, read_entries(path)) for split, path in list_files(base).items()}
    if not lists:
        lists = {"all": (base / "img", pairs.all_images())}
    splits = {split: pairs.read(entries, path) for split, (path, entries) in lists.items()}
    raise_problems(pairs.problems)
    return Source(root, "sbd", splits, VOC_CLASSES, False, ["SBD: the 21 classes of PASCAL VOC"])
